"""Machines that are neither a phone's processor nor this one: a few networks on each of them.

With MDLC_TEST_TARGETS, all other tests of emitted code run on them, too (tests/targets.py).
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import mdlc
from mdlc.codegen.cpp.kernels_file import source_files
from mdlc.codegen.isa.registry import find_isa
from mdlc.codegen.plan.lowering import lower
from mdlc.codegen.run.executable import Executable, program_files
from mdlc.codegen.run.toolchain import BUILD_FLAGS, find_toolchain
from mdlc.compiler.interpreter import run
from mdlc.compiler.ops.input import graph_input
from mdlc.compiler.types import DType
from mdlc.passes.layout import assign_layout
from tests.emitted_code import block_model, image
from tests.op_samples import sampled_ops
from tests.targets import NEWEST, OTHERS, require, zig
from tests.test_kernels import ATOL, RTOL, network_of
from tests.test_quantized_kernels import agrees, product, summed

# Those that differ from another one in more than fused multiply-adds.
DISTINCT = [name for name in OTHERS if name != "armv7-neon+vfpv4"]
# Vectors of every kind of primitive; functions, comparisons, reductions, pools.
OPERATORS = ("Ceil", "Clip", "Elu", "Erf", "Exp", "Floor", "HardSwish", "IsNaN", "Log", "MaxPool2D",
             "Round", "Sign", "Softmax", "Sqrt", "Tanh", "Transpose")  # fmt: skip
BYTES = ("QuantizedAdd", "QuantizedAveragePool2D", "QuantizeLinear", "DequantizeLinear")


@pytest.mark.parametrize("target", DISTINCT)
@pytest.mark.parametrize("names", [OPERATORS, BYTES], ids=["floats", "bytes"])
def test_operators(target: str, names: tuple[str, ...]) -> None:
    require(target)
    graph, values = network_of(*(cls for cls in sampled_ops() if cls.__name__ in names))
    expected = run(graph, values)
    flags = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")
    actual = Executable(lower(assign_layout(graph), find_isa(target), "Some"), flags=flags)(values)
    for name, value in expected.items():
        close = value.dtype.kind == "f"
        np.testing.assert_allclose(
            actual[name], value, RTOL if close else 0, ATOL if close else 0, err_msg=name
        )


@pytest.mark.parametrize("target", OTHERS)
def test_a_network(target: str) -> None:
    require(target)
    expected = onnxruntime.InferenceSession(block_model().SerializeToString()).run(
        None, {"image": image(5)}
    )
    actual = mdlc.compile(block_model(), target, name="Block").build()(image=image(5))
    np.testing.assert_allclose(actual["logits"], expected[0], 1e-4, 1e-5)


@pytest.mark.parametrize("target", DISTINCT)
def test_products_of_bytes(target: str) -> None:
    """Every factor, extreme values, sums behind convolutions, depthwise convolutions."""
    require(target)
    rng = np.random.default_rng(1)
    x = rng.integers(-128, 127, (1, 37, 5, 7), np.int8, endpoint=True)
    low = np.full((1, 37, 5, 7), 0, np.uint8)
    low[:, :, 1:] = 255
    node, bytes_ = graph_input("x", x.shape, DType.I8), graph_input("low", low.shape, DType.U8)
    factors = np.array([0.0, *np.exp2(np.linspace(-40, 29, 45))])
    same = {"pads": (1, 1, 1, 1), "x_zero": 3}
    outputs = [
        product(node, 46, 1, factors, y_zero=-77),
        product(node, 46, 1, np.minimum(factors, 0.1)),
        summed(product(node, 37, 3, 0.0005, **same), node),
        product(node, 37, 3, 0.003, groups=37, **same),
        product(node, 37, 3, 0.4, groups=37, stride=(2, 2), **same),
    ]
    for weight in (-128, 127):
        w = np.full((13, 37, 3, 3), weight, np.int8)
        outputs.append(product(bytes_, 13, 3, 1e-7, w, pads=(1, 1, 1, 1)))
    agrees(target, {"x": x, "low": low}, outputs)


@pytest.mark.parametrize("target", NEWEST)
def test_layers_by_a_newer_compiler(target: str, tmp_path: Path) -> None:
    """The layers by zig, which knows the instructions, all else by the system's compiler."""
    newer = zig(target)
    require("wasm-simd128")
    system = find_toolchain(find_isa("wasm-simd128"))
    plan = mdlc.compile(block_model(), target, name="Block").plan
    for name, data in program_files(plan).items():
        (tmp_path / name).write_bytes(data)
    _, layers = source_files(plan)
    for command, names in ((newer, [layers]), (system.compiler, ["Block.cpp", "runner.cpp"])):
        subprocess.run([*command, *BUILD_FLAGS, "-c", *names], cwd=tmp_path, check=True)
    objects = ["Block.o", "runner.o", layers.replace(".cpp", ".o")]
    subprocess.run([*system.compiler, *objects, "-o", "runner"], cwd=tmp_path, check=True)
    (port,) = plan.inputs
    (tmp_path / "in.raw").write_bytes(port.type.to_physical(image(5)).tobytes())
    files = [tmp_path / name for name in ("Block.weights", "in.raw", "out.raw")]
    subprocess.run([*system.runner, tmp_path / "runner", "run", "1", *files], check=True)
    session = onnxruntime.InferenceSession(block_model().SerializeToString())
    (expected,) = session.run(None, {"image": image(5)})
    actual = np.fromfile(tmp_path / "out.raw", np.float32)
    np.testing.assert_allclose(actual, expected.reshape(-1), 1e-4, 1e-5)
