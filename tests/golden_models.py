"""A small network that has most of what an emitted class can have, for a golden file."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mdlc.compiler.types import Array

BACKBONE = "backbone/first_stage_at_half_of_the_resolution"
HEAD = "head/classification_of_the_picture"


def mixed_model() -> onnx.ModelProto:
    """Long names, layers that are fused by rows, a Winograd convolution, and one in 8 bits."""
    rng = np.random.default_rng(0)
    weights: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []

    def constant(value: Array, name: str = "") -> str:
        name = name or f"constant_{len(weights)}"
        weights.append(numpy_helper.from_array(value, name))
        return name

    def conv(x: str, name: str, filters: int, shape: tuple[int, ...], **attributes: object) -> str:
        w = constant(rng.standard_normal((filters, *shape)).astype(np.float32) / 8)
        b = constant(rng.standard_normal(filters).astype(np.float32))
        nodes.append(helper.make_node("Conv", [x, w, b], [f"{name}/y"], name=name, **attributes))
        nodes.append(helper.make_node("Relu", [f"{name}/y"], [f"{name}/relu"]))
        return f"{name}/relu"

    def in_8_bits(x: str, scale: float, name: str = "") -> str:
        linear = [constant(np.float32(scale)), constant(np.int8(0))]
        if not name:
            nodes.append(helper.make_node("QuantizeLinear", [x, *linear], [f"{x}/q"]))
            name, x = f"{x}/dq", f"{x}/q"
        nodes.append(helper.make_node("DequantizeLinear", [x, *linear], [name]))
        return name

    same = {"pads": [1, 1, 1, 1]}
    x = conv("picture", f"{BACKBONE}/convolution", 16, (3, 3, 3), strides=[2, 2], **same)
    x = conv(x, f"{BACKBONE}/depthwise", 16, (1, 3, 3), group=16, **same)
    x = conv(x, f"{BACKBONE}/pointwise", 16, (16, 1, 1))
    nodes.append(
        helper.make_node(
            "MaxPool", [x], ["small"], name="halved", kernel_shape=[2, 2], strides=[4, 4]
        )
    )
    x = conv("small", "context/convolution", 32, (16, 3, 3), **same)
    x = in_8_bits(x, 0.25)
    bytes_ = rng.integers(-90, 90, (24, 32, 1, 1)).astype(np.int8)
    w = in_8_bits(constant(bytes_), 0.01, "pointwise_weights")
    b = constant(rng.standard_normal(24).astype(np.float32))
    nodes.append(helper.make_node("Conv", [x, w, b], ["mixed"], name=f"{HEAD}/in_8_bits"))
    x = in_8_bits("mixed", 0.5)
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["pooled"], name=f"{HEAD}/mean"))
    nodes.append(helper.make_node("Flatten", ["pooled"], [f"{HEAD}/features"]))
    graph = helper.make_graph(
        nodes,
        "mixed",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, (1, 3, 576, 288))],
        [helper.make_tensor_value_info(f"{HEAD}/features", TensorProto.FLOAT, (1, 24))],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model
