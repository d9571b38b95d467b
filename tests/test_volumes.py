"""Pooling and convolution of volumes, interpreted and emitted, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

from mdlc.codegen.isa.registry import find_isa
from mdlc.codegen.plan.lowering import lower
from mdlc.codegen.run.executable import Executable
from mdlc.compiler.interpreter import run
from mdlc.compiler.onnx_import import import_model
from mdlc.compiler.types import Array
from mdlc.passes.layout import assign_layout
from tests.targets import require


@st.composite
def pools(draw: st.DrawFn) -> tuple[onnx.ModelProto, dict[str, Array]]:
    kernel = [draw(st.integers(1, 3)) for _ in range(3)]
    attributes: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": [draw(st.integers(1, 3)) for _ in range(3)],
        "ceil_mode": draw(st.integers(0, 1)),
    }
    # Padding of less than the window, so that no window lies outside.
    attributes["pads"] = [draw(st.integers(0, k - 1)) for k in (*kernel, *kernel)]
    kind = draw(st.sampled_from(["MaxPool", "AveragePool"]))
    if kind == "AveragePool":
        attributes["count_include_pad"] = draw(st.integers(0, 1))
    shape = [draw(st.integers(1, 2)), draw(st.integers(1, 5))]
    shape += [draw(st.integers(k, 7)) for k in kernel]
    x = np.random.default_rng(draw(st.integers(0, 9))).uniform(-1, 1, shape).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node(kind, ["x"], ["y"], **attributes)],
        "volume",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info("y", 1, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    return model, {"x": x}


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[onnx.ModelProto, dict[str, Array]]:
    kernel = [draw(st.integers(1, 3)) for _ in range(3)]
    groups = draw(st.sampled_from([1, 1, 2]))
    channels, outputs = groups * draw(st.integers(1, 4)), groups * draw(st.integers(1, 5))
    dilations = [draw(st.integers(1, 2)) for _ in range(3)]
    shape = [draw(st.integers(1, 2)), channels]
    shape += [
        (k - 1) * d + 1 + draw(st.integers(0, 4)) for k, d in zip(kernel, dilations, strict=True)
    ]
    random = np.random.default_rng(draw(st.integers(0, 9)))
    x, w, b = (
        random.uniform(-1, 1, each).astype(np.float32)
        for each in (shape, [outputs, channels // groups, *kernel], [outputs])
    )
    node = helper.make_node(
        "Conv", ["x", "w", "b"] if draw(st.booleans()) else ["x", "w"], ["y"], group=groups,
        strides=[draw(st.integers(1, 2)) for _ in range(3)], dilations=dilations,
        pads=[draw(st.integers(0, 2)) for _ in range(6)],
    )  # fmt: skip
    graph = helper.make_graph(
        [node],
        "volume",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info("y", 1, None)],
        [onnx.numpy_helper.from_array(w, "w"), onnx.numpy_helper.from_array(b, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    return model, {"x": x}


def assert_as_onnxruntime(
    actual: dict[str, Array], model: onnx.ModelProto, values: dict[str, Array]
) -> None:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (expected,) = session.run(None, values)
    np.testing.assert_allclose(actual["y"], expected, rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=150)
@given(st.one_of(pools(), convolutions()))
def test_interpreted(drawn: tuple[onnx.ModelProto, dict[str, Array]]) -> None:
    model, values = drawn
    assert_as_onnxruntime(run(import_model(model), values), model, values)


@pytest.mark.parametrize("target", ["generic", "x86-avx2", "arm-neon"])
@settings(deadline=None, max_examples=5, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(pools(), convolutions()))
def test_emitted(target: str, drawn: tuple[onnx.ModelProto, dict[str, Array]]) -> None:
    require(target)
    model, values = drawn
    plan = lower(assign_layout(import_model(model)), find_isa(target), "Layer")
    assert_as_onnxruntime(Executable(plan)(values), model, values)
