"""Machines that are neither a phone's processor nor this one: a few networks on each of them.

With MDLC_TEST_TARGETS, all other tests of emitted code run on them, too (tests/targets.py).
"""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

import mdlc
from mdlc.codegen.isa.registry import find_isa
from mdlc.codegen.plan.lowering import lower
from mdlc.codegen.run.executable import Executable
from mdlc.compiler.interpreter import run
from mdlc.compiler.ops.input import graph_input
from mdlc.compiler.types import DType
from mdlc.passes.layout import assign_layout
from tests.emitted_code import block_model, image
from tests.op_samples import sampled_ops
from tests.targets import OTHERS, require
from tests.test_kernels import ATOL, RTOL, network_of
from tests.test_quantized_kernels import agrees, product, summed

# Vectors of every kind of primitive; functions, comparisons, reductions, pools.
OPERATORS = ("Ceil", "Clip", "Elu", "Erf", "Exp", "Floor", "HardSwish", "IsNaN", "Log", "MaxPool2D",
             "Round", "Sign", "Softmax", "Sqrt", "Tanh", "Transpose")  # fmt: skip
BYTES = ("QuantizedAdd", "QuantizedAveragePool2D", "QuantizeLinear", "DequantizeLinear")


@pytest.mark.parametrize("target", OTHERS)
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


@pytest.mark.parametrize("target", OTHERS)
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
