"""What verify finds and what it does not take for a fault.

Faults are injected into the graph that plays the emitted class: interpreted in single precision,
it costs no compiler run, so that many can be tried (benchmarks/injected_faults.py tries more).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import mdlc
from mdlc.checks.verification import Judge, Verification, verify
from mdlc.compiler.interpreter import evaluate
from mdlc.compiler.types import Array
from mdlc.inputs.pictures import random_inputs
from tests.injected_faults import drawn, played
from tests.shared_data import SHARED
from tests.test_api import DIGITS

NETWORKS = ("digits", "yunet_n", "resnet8_cifar10", "kwt1")


def network(name: str) -> mdlc.CompiledModel:
    if name == "digits":
        return mdlc.compile(DIGITS, "x86-avx2")
    path = SHARED / "models" / f"{name}.onnx"
    if not path.exists():
        pytest.skip("shared/ is absent")
    return mdlc.compile(path, "x86-avx2")


def model(
    nodes: list[onnx.NodeProto], shapes: Mapping[str, list[int]], **constants: Array
) -> onnx.ModelProto:
    """A model from x to y of the given shapes."""
    ports = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()}
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", [ports["x"]], [ports["y"]], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def verified(made: onnx.ModelProto, x: Array, target: str = "x86-avx2") -> Verification:
    return verify(mdlc.compile(made, target), [{"x": x}])


def test_tails_of_the_sigmoid() -> None:
    """ONNX Runtime's sigmoid is right to 1e-7 of 1: below -18 it is 0."""
    made = model([helper.make_node("Sigmoid", ["x"], ["y"])], {"x": [1, 8], "y": [1, 8]})
    found = verified(made, np.linspace(-30, -14, 8, dtype=np.float32)[None])
    assert found.ok, found.first_off


def test_mean_of_what_is_centred() -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[1]),
        helper.make_node("Sub", ["x", "m"], ["c"]),
        helper.make_node("ReduceMean", ["c"], ["m2"], axes=[1]),
        helper.make_node("Sub", ["c", "m2"], ["y"]),
    ]
    shape = [1, 48, 16, 16]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    found = verified(model(nodes, {"x": shape, "y": shape}), x)
    assert found.ok, found.first_off


def test_integers_behind_floats() -> None:
    generator = np.random.default_rng(0)
    weights = generator.integers(-127, 127, (4, 3, 3, 3)).astype(np.int8)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("ConvInteger", ["q", "w", "z"], ["a"], pads=[1] * 4),
        helper.make_node("Cast", ["a"], ["f"], to=1),
        helper.make_node("Mul", ["f", "s"], ["y"]),
    ]
    made = model(nodes, {"x": [1, 3, 16, 16], "y": [1, 4, 16, 16]}, w=weights)
    found = verified(made, generator.standard_normal((1, 3, 16, 16)).astype(np.float32))
    assert found.ok, found.first_off


def test_means_of_integers_that_lie_between_two() -> None:
    """The mean of four is a tie in one case of four, rounded half to even by ONNX."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("AveragePool", ["d"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("QuantizeLinear", ["m", "s", "z"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "s", "z"], ["y"]),
    ]
    made = model(nodes, {"x": [1, 8, 8, 8], "y": [1, 8, 4, 4]},
                 s=np.float32(0.5), z=np.int8(3))  # fmt: skip
    x = np.random.default_rng(0).integers(-60, 60, (1, 8, 8, 8)).astype(np.float32) / 2
    found = verified(made, x, "generic")
    assert found.ok, found.first_off


@pytest.mark.parametrize("low", [0.999, 1e-40])
def test_logarithms_near_zero_and_denormals(low: float) -> None:
    made = model(
        [helper.make_node("Log", ["x"], ["l"]), helper.make_node("Mul", ["l", "x"], ["y"])],
        {"x": [1, 64], "y": [1, 64]},
    )
    x = np.linspace(low, low * 1.002, 64, dtype=np.float32)[None]
    found = verified(made, x)
    assert found.ok, found.first_off


def test_an_operator_that_is_read_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an import is wrong, class and graph agree; only ONNX Runtime tells."""
    from mdlc.compiler.ops.leaky_relu import LeakyRelu

    from_onnx = LeakyRelu.from_onnx

    def wrong(n: Any) -> Any:
        made = from_onnx(n)
        return replace(made, op=replace(made.op, alpha=made.op.alpha * 1.01))

    monkeypatch.setattr(LeakyRelu, "from_onnx", wrong)
    made = model([helper.make_node("LeakyRelu", ["x"], ["y"], alpha=0.3)], {"x": [9], "y": [9]})
    found = verified(made, np.linspace(-2, 2, 9, dtype=np.float32))
    assert found.first_off is not None
    assert "ONNX Runtime computes 'y' (LeakyRelu) differently" in found.first_off.fault


@pytest.mark.parametrize("name", NETWORKS)
def test_injected_faults_are_found_at_their_layer(name: str) -> None:
    """One weight, bias, tap or epilogue of any layer."""
    compiled = network(name)
    judge = Judge(compiled)
    inputs = random_inputs(compiled.graph, compiled.how)
    assert judge([played(compiled, inputs)]).ok
    values = evaluate(compiled.graph, inputs)
    generator = np.random.default_rng(0)
    for _ in range(6):
        fault = drawn(compiled, values, generator)
        found = judge([played(compiled, inputs, fault)])
        assert found.first_off is not None, (fault.kind, fault.step)
        assert found.first_off.step == fault.step, fault.kind
