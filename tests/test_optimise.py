"""Filters in the weights file instead of their transforms: the same class, a file as the model."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import mdlc
from mdlc.api import CompiledModel
from mdlc.codegen.kernel import seen_by
from mdlc.codegen.plan.weights_file import weights_file
from tests.targets import require

# (channels, filters, kernel, stride): strides whose phases lack taps, channels of no whole vectors.
LAYERS = (
    (3, 16, 3, 1),
    (16, 24, 3, 1),
    (24, 32, 3, 2),
    (32, 48, 5, 2),
    (48, 32, 5, 1),
    (32, 64, 3, 2),
)


def network() -> onnx.ModelProto:
    """3x3 and 5x5 convolutions one behind the other, which Winograd's algorithm computes."""
    generator = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for number, (channels, filters, kernel, stride) in enumerate(LAYERS):
        value = generator.standard_normal((filters, channels, kernel, kernel)) / np.sqrt(
            channels * kernel**2
        )
        weights.append(numpy_helper.from_array(value.astype(np.float32), f"w{number}"))
        bias = generator.standard_normal(filters).astype(np.float32)
        weights.append(numpy_helper.from_array(bias, f"b{number}"))
        inputs = [last, f"w{number}", f"b{number}"]
        last = f"c{number}"
        nodes.append(
            helper.make_node("Conv", inputs, [last], strides=[stride] * 2, pads=[kernel // 2] * 4)
        )
        nodes.append(helper.make_node("Relu", [last], [f"r{number}"]))
        last = f"r{number}"
    graph = helper.make_graph(
        nodes,
        "filters",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 96, 80))],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, (1, 64, 12, 10))],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def compiled(target: str, optimise: str) -> CompiledModel:
    """The network, in half precision where the target has it."""
    precision = "fp16" if target.endswith("fp16") else "fp32"
    return mdlc.compile(network(), target, name="Net", optimise=optimise, precision=precision)


@pytest.mark.parametrize("target", ["host", "arm-neon+fp16"])
def test_init_transforms_what_the_file_would_hold(target: str) -> None:
    """Bit by bit the same results; every layer by Winograd's algorithm is one of the filters."""
    require(target)
    fast, small = (compiled(target, optimise) for optimise in ("speed", "size"))
    assert not fast.plan.encoded
    winograd = {s.name for s in fast.plan.steps if s.kernel.name == "conv_winograd"}
    assert len(winograd) >= 4
    larger = {
        step.name
        for step in fast.plan.steps
        if step.kernel.transformed(step.node, step.schedule, seen_by(step.node, fast.plan.isa))
    }
    assert larger == winograd == set(small.plan.encoded)
    x = np.random.default_rng(1).standard_normal((1, 3, 96, 80)).astype(np.float32)
    outputs = [each.build()({"x": x}) for each in (fast, small)]
    for name, value in outputs[0].items():
        np.testing.assert_array_equal(value, outputs[1][name])


def test_a_file_is_at_most_a_quarter_longer_than_the_model() -> None:
    """By default; with as few layers in the other form as it takes."""
    sizes = {
        o: len(weights_file([compiled("arm-neon", o).plan])) for o in ("speed", "balanced", "size")
    }
    model = sum(numpy_helper.to_array(each).nbytes for each in network().graph.initializer)
    assert sizes["size"] <= sizes["balanced"] <= 1.25 * model < sizes["speed"]
    balanced, size = (compiled("arm-neon", o).plan.encoded for o in ("balanced", "size"))
    assert set(balanced) < set(size)
