"""What layers are called: after the model's own name of the convolution, where that reads well."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import mdlc
from mdlc.codegen.plan.layer_names import layer_names
from mdlc.compiler.ir import Node, make
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.input import graph_input
from tests.emitted_code import block_model


def _conv(origin: str, weights: str = "", *, depthwise: bool = False) -> Node:
    x = graph_input("x", (1, 4, 5, 5))
    w = constant(np.zeros((4, 1 if depthwise else 4, 1, 1), np.float32), weights)
    op = Conv2D(groups=4 if depthwise else 1)
    return make(op, x, w, constant(np.zeros(4, np.float32)), name="relu_7", origin=origin)


@pytest.mark.parametrize(
    ("origin", "weights", "name"),
    [
        ("conv1", "", "conv1"),
        ("/conv1/Conv", "onnx::Conv_274", "conv1"),
        ("/layer1/layer1.0/conv1/Conv", "onnx::Conv_277", "layer1_0_conv1"),
        ("/model.6/m.0/m/m.1/cv1/conv/Conv", "", "model_6_m_0_m_1_cv1_conv"),
        ("Conv_58", "onnx::Conv_808", "conv58"),
        ("Conv_0", "ConvBnFusion_W_conv_stem.weight_0", "conv_stem"),
        ("p2o.Conv.16", "conv2d_16.w_0", "conv16"),
        ("Conv__221", "const_fold_opt__311", "conv221"),
        ("291", "base_net.7.branch1.0.conv.weight", "base_net_7_branch1_0_conv"),
        ("245", "base_net.0.0.weight", "base_net_0_0"),
        ("263", "941", "conv263"),
        ("conv_3", "w_1", "conv3"),
        ("0/spectra", "", "conv_0_spectra"),
        ("model/conv2d/Relu;model/conv2d/BiasAdd;model/conv2d_2/Conv2D;model/conv2d/Conv2D1", "",
         "model_conv2d"),
        ("日本", "", "conv"),
        ("", "", "conv"),
    ],
)  # fmt: skip
def test_names_of_exporters(origin: str, weights: str, name: str) -> None:
    assert layer_names([_conv(origin, weights)]) == [name]


@pytest.mark.parametrize(
    ("origin", "name"),
    [("conv2_1/dw", "conv2_1_dw"), ("Conv_3", "conv3_dw"), ("n/conv2d_1_depthwise/depthwise_Fold",
     "n_conv2d_1_depthwise"), ("features.1", "features_1_dw")],
)  # fmt: skip
def test_depthwise_layers_say_so(origin: str, name: str) -> None:
    assert layer_names([_conv(origin, depthwise=True)]) == [name]


def test_the_name_of_the_network_is_left_out() -> None:
    nodes = [_conv(f"MobilenetV2/expanded_conv_{i}/project/Conv2D") for i in range(3)]
    assert layer_names([*nodes, _conv("logits")]) == [
        *(f"expanded_conv_{i}_project" for i in range(3)),
        "logits",
    ]


def test_a_long_name_loses_whole_words() -> None:
    words = [f"word{i}" for i in range(20)]
    (name,) = layer_names([_conv("/".join(words))])
    assert 40 < len(name) <= 48
    assert name.split("_") == words[-len(name.split("_")) :]
    assert layer_names([_conv("a" * 60)]) == ["a" * 60]


@settings(deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=30), min_size=1, max_size=6))
def test_any_name_gives_an_identifier(origins: list[str]) -> None:
    for name in layer_names([_conv(origin) for origin in origins]):
        assert re.fullmatch(r"[a-z][0-9a-z]*(_[0-9a-z]+)*", name), name


def test_fused_layers_keep_the_name_of_the_convolution() -> None:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"], name="conv1"),
        helper.make_node("BatchNormalization", ["c", "g", "g", "g", "g"], ["b"], name="norm1"),
        helper.make_node("Relu", ["b"], ["r"], name="relu1"),
        helper.make_node("Conv", ["r", "w"], ["d"], name="conv2"),
        helper.make_node("Add", ["d", "r"], ["s"], name="sum"),
        helper.make_node("Relu", ["s"], ["output"], name="relu2"),
    ]
    shape = (1, 4, 5, 5)
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
        [
            numpy_helper.from_array(rng.random((4, 4, 1, 1), np.float32), "w"),
            numpy_helper.from_array(np.ones(4, np.float32), "g"),
        ],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for target in ("generic", "metal"):
        compiled = mdlc.compile(model, target)
        assert [step.name for step in compiled.plan.steps] == ["conv1", "conv2"]
        assert [step.node.name for step in compiled.plan.steps] == ["r", "output"]
    ports = (
        *mdlc.compile(model, "generic").plan.inputs,
        *mdlc.compile(model, "generic").plan.outputs,
    )
    assert [port.identifier for port in ports] == ["input", "output"]


def test_quantized_layers_keep_the_name_of_the_convolution() -> None:
    def qdq(x: str, name: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node(
                "QuantizeLinear", [x, "scale", "zero"], [f"{name}_q"], name=f"{name}_Q"
            ),
            helper.make_node(
                "DequantizeLinear", [f"{name}_q", "scale", "zero"], [name], name=f"{name}_D"
            ),
        ]

    nodes = [
        *qdq("x", "xd"),
        helper.make_node("DequantizeLinear", ["w", "scale", "wzero"], ["wd"], name="weights"),
        helper.make_node("Conv", ["xd", "wd"], ["c"], name="conv1"),
        helper.make_node("Relu", ["c"], ["r"], name="relu1"),
        *qdq("r", "y"),
    ]
    shape = (1, 4, 5, 5)
    weights = np.random.default_rng(0).integers(-9, 9, (4, 4, 1, 1)).astype(np.int8)
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [
            numpy_helper.from_array(weights, "w"),
            numpy_helper.from_array(np.float32(0.1), "scale"),
            numpy_helper.from_array(np.uint8(3), "zero"),
            numpy_helper.from_array(np.int8(0), "wzero"),
        ],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    names = [step.name for step in mdlc.compile(model, "x86-avx2").plan.steps]
    assert names == ["quantize", "conv1", "dequantize"]


def test_layers_of_a_small_network() -> None:
    names = [step.name for step in mdlc.compile(block_model(), "generic").plan.steps]
    assert names == ["stem_c", "dw_c", "pw_c", "pool", "fc7"]
