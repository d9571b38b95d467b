"""Layers whose values half precision cannot hold are stored in float, where the graph says so."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import mdlc
from mdlc.codegen.metal.emit_metal import textures_of
from mdlc.codegen.metal.split import MetalPlan
from tests.metal.programs import relative_error, require_clang

SIZE = (1, 8, 12, 10)


def large_model(top: float) -> onnx.ModelProto:
    """A clipped input, its sums of up to 36 times `top`, pooled and resized, and scaled down."""
    rng = np.random.default_rng(1)
    arrays = {
        "low": np.float32(0.0),
        "top": np.float32(top),
        "w": rng.uniform(0.2, 0.5, (8, 8, 3, 3)).astype(np.float32),
        "p": (rng.standard_normal((6, 8, 1, 1)) / 100).astype(np.float32),
        "sizes": np.array([1, 1, 2, 2], np.float32),
    }
    nodes = [
        helper.make_node("Clip", ["x", "low", "top"], ["c"]),
        helper.make_node("Conv", ["c", "w"], ["large"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["large"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Resize", ["m", "", "sizes"], ["u"], mode="linear"),
        helper.make_node("Conv", ["u", "p"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SIZE)],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in "yu"],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def formats(top: float) -> list[str]:
    plan = mdlc.compile(large_model(top), "metal").plan
    assert isinstance(plan, MetalPlan)
    return sorted(texture.format for texture in textures_of(plan))


def test_only_what_could_overflow_is_stored_in_float() -> None:
    assert set(formats(6.0)) == {"RGBA16Float"}
    # The convolution's result, and what is as large as it: pooled and resized.
    assert formats(8000.0).count("RGBA32Float") == 3


def test_values_beyond_half_are_those_of_onnxruntime() -> None:
    require_clang()
    model = large_model(8000.0)
    x = np.random.default_rng(0).uniform(0, 8000, SIZE).astype(np.float16).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    wanted = dict(zip(names, session.run(None, {"x": x}), strict=True))
    assert np.abs(wanted["u"]).max() > 65504  # infinite in half
    program = mdlc.compile(model, "metal").build()
    for name, value in program({"x": x}).items():
        assert relative_error(value, wanted[name]) < 2e-3, name
    traced = program.trace({"x": x})
    assert all(np.isfinite(value).all() for value in traced.values())
