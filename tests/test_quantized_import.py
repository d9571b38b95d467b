"""Models in 8 bits as they come: QDQ pairs and QLinear operators, against ONNX Runtime.

Every integer operator is given ONNX Runtime's own integers, so that a difference is its own and
no earlier operator's. Differences are at most one step; the share that differs is bounded.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import mdlc
from mdlc.checks.integer_verification import integer_layers
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.interpreter import run
from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.onnx_import import import_model
from mdlc.compiler.ops.concat import Concat
from mdlc.compiler.ops.quantized_conv2d import QuantizedConv2D
from mdlc.compiler.ops.slice import Slice
from mdlc.compiler.types import Array
from mdlc.passes.lower_quantized import lower_quantized
from mdlc.pipeline import optimise
from tests.passes.ir import operators
from tests.shared_data import model_inputs, model_path, needs_shared, onnxruntime_outputs
from tests.targets import TARGETS, require

RNG = np.random.default_rng(5)
MICROSOFT = "com.microsoft"


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def every_tensor(model: onnx.ModelProto, inputs: dict[str, Array]) -> dict[str, Array]:
    """All tensors of ONNX Runtime's run, by name."""
    known = {output.name for output in model.graph.output}
    for node in model.graph.node:
        model.graph.output.extend(
            onnx.ValueInfoProto(name=name) for name in node.output if name and name not in known
        )
    names = [output.name for output in model.graph.output]
    return {**inputs, **dict(zip(names, session(model).run(names, inputs), strict=True))}


def integer_differences(graph: Graph, tensors: dict[str, Array]) -> dict[str, tuple[int, int]]:
    """Elements that differ, and all, by operator; each at most one step off."""
    differing: Counter[str] = Counter()
    total: Counter[str] = Counter()

    @cache
    def value(node: Node) -> Array:
        """ONNX Runtime's tensor, or what an operator that mdlc puts in between makes of one."""
        if node.constant is not None:
            return node.constant
        known = tensors.get(node.name)
        if known is not None and known.dtype == node.type.dtype.numpy:
            return known.reshape(node.shape)
        return node.op.reference(*(value(source) for source in node.inputs))

    for node in graph.order():
        if node.constant is not None or node in graph.inputs or node.type.dtype.is_float:
            continue
        if not node.name:  # a part of a layer
            continue
        found, wanted = node.op.reference(*(value(s) for s in node.inputs)), tensors[node.name]
        assert found.dtype == wanted.dtype
        apart = np.abs(found.astype(int) - wanted.reshape(found.shape).astype(int))
        assert apart.max(initial=0) <= 1, node
        # Convolutions with weights of nine bits end in a concatenation of channels.
        wide = isinstance(node.op, Concat) and any(
            isinstance(s.op, Slice) and isinstance(s.inputs[0].op, QuantizedConv2D)
            for s in node.inputs
        )
        kind = "wide" if wide else type(node.op).__name__
        differing[kind] += int((apart > 0).sum())
        total[kind] += apart.size
    return {kind: (differing[kind], total[kind]) for kind in total}


# Share of elements one step off: ONNX Runtime rounds halves to even, the integer operators up.
# Means of 2x2 integers of one scale are halves or quarters, so that many tie.
ALLOWED = {"QuantizedAveragePool2D": 0.05, "QuantizedAdd": 0.02}


@needs_shared
@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        # Their biases are added to what has been rounded already, as constants: in float.
        ("kws_qdq", {"QuantizedConv2D": 3, "QuantizedDense": 3, "QuantizedAveragePool2D": 2}),
        ("kws_qoperator", {"QuantizedConv2D": 3, "QuantizedDense": 3}),
        # All 53 convolutions, 50 of them with weights of nine bits and two convolutions each.
        (
            "mobilenet_v2_imagenet_qdq",
            {"QuantizedConv2D": 3 + 2 * 50, "QuantizedAdd": 10, "QuantizedAveragePool2D": 1},
        ),
    ],
)
def test_networks_give_the_integers_of_onnxruntime(name: str, kinds: dict[str, int]) -> None:
    path = model_path(name)
    graph = optimise(import_model(path), stop_after="lower_quantized")
    count = Counter(operators(graph))
    assert all(count[kind] == wanted for kind, wanted in kinds.items())
    (given,) = graph.inputs
    values = RNG.uniform(-1, 1, given.shape).astype(np.float32)
    tensors = every_tensor(onnx.load(path), {given.name: values})
    for kind, (off, total) in integer_differences(graph, tensors).items():
        assert off <= ALLOWED.get(kind, 1e-3) * total, kind


@needs_shared
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["kws_qdq", "kws_qoperator"])
def test_emitted_classes_have_the_integers_of_the_reference(name: str, target: str) -> None:
    require(target)
    compiled = mdlc.compile(model_path(name), target)
    found = integer_layers(compiled, model_inputs(name, 2))
    assert found.first_off is None
    (outputs,) = compiled.build().run_many(model_inputs(name, 1))
    wanted = onnxruntime_outputs(name, model_inputs(name, 1)[0])
    for output, value in wanted.items():
        # Single steps add up over the layers; a step of the last is 1/255.
        np.testing.assert_allclose(outputs[output], value, atol=4.5 / 255)
        assert outputs[output].argmax() == value.argmax()


def quantised(shape: tuple[int, ...], dtype: type = np.int8) -> Array:
    info = np.iinfo(dtype)
    return RNG.integers(info.min, info.max, shape, dtype, endpoint=True)


def model(
    op: str,
    x: Array,
    others: list[Any],
    output: int = TensorProto.INT8,
    domain: str = "",
    outputs: int = 1,
    **attributes: Any,
) -> onnx.ModelProto:
    """One operator on an input and constants; None leaves an optional one out, a name is one."""
    names = [f"c{i}" if isinstance(v, np.ndarray) else v or "" for i, v in enumerate(others)]
    made = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, ["x", *names], made, domain=domain, **attributes)
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", kind, x.shape)],
        [helper.make_tensor_value_info(name, output, None) for name in made],
        [
            numpy_helper.from_array(v, f"c{i}")
            for i, v in enumerate(others)
            if isinstance(v, np.ndarray)
        ],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def check(proto: onnx.ModelProto, x: Array, expected: list[str] | None, steps: int = 1) -> None:
    """Imported and lowered, it has these operators and ONNX Runtime's integers."""
    graph = lower_quantized(import_model(proto.SerializeToString()))
    expected = operators(graph) if expected is None else expected
    assert operators(graph) == expected
    names = [output.name for output in proto.graph.output]
    wanted = dict(zip(names, session(proto).run(names, {"x": x}), strict=True))
    found = run(graph, {"x": x})
    for name in names:
        assert found[name].dtype == wanted[name].dtype
        if found[name].dtype.kind == "f":
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-6)
            continue
        apart = np.abs(found[name].astype(np.int64) - wanted[name].astype(np.int64))
        assert apart.max(initial=0) <= steps
        # A mean of 9 elements times 1.5 is a half for every sixth sum.
        assert (apart > 0).mean() <= (0.25 if "QuantizedAveragePool2D" in expected else 0.05)


def scale(value: float) -> Array:
    return np.array(value, np.float32)


def zero(value: int, dtype: type = np.int8) -> Array:
    return np.array(value, dtype)


@pytest.mark.parametrize("group", [1, 6], ids=["full", "depthwise"])
@pytest.mark.parametrize("channels", [False, True], ids=["tensor", "channels"])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_qlinear_conv(group: int, channels: bool, dtype: type) -> None:
    x = quantised((1, 6, 9, 7), dtype)
    w = quantised((6, 6 // group, 3, 3))
    factors = RNG.uniform(0.001, 0.003, 6).astype(np.float32) if channels else scale(0.002)
    zeros = np.zeros(6, np.int8) if channels else zero(0)
    bias = RNG.integers(-3000, 3000, 6).astype(np.int32)
    others = [scale(0.03), zero(5, dtype), w, factors, zeros, scale(0.07), zero(100, dtype), bias]
    kind = TensorProto.INT8 if dtype is np.int8 else TensorProto.UINT8
    proto = model("QLinearConv", x, others, kind, group=group, pads=[1, 1, 1, 1], strides=[2, 1])
    check(proto, x, ["QuantizedConv2D"])


@pytest.mark.parametrize("spread", [100, 255], ids=["8_bits", "9_bits"])
def test_qlinear_conv_with_weights_that_have_a_zero_point(spread: int) -> None:
    x, w = quantised((1, 4, 6, 6), np.uint8), RNG.integers(0, spread, (5, 4, 3, 3)).astype(np.uint8)
    others = [scale(0.03), zero(128, np.uint8), w, scale(0.002), zero(50, np.uint8), scale(0.1),
              zero(120, np.uint8)]  # fmt: skip
    proto = model("QLinearConv", x, others, TensorProto.UINT8)
    wide = ["DequantizeLinear", "Conv2D", "QuantizeLinear"]
    check(proto, x, ["QuantizedConv2D"] if spread == 100 else wide)


def nine_bits(depthwise: bool, wide: int) -> tuple[onnx.ModelProto, Array]:
    """A convolution with `wide` filters of 16 that have a weight of 255 less a zero point of 90."""
    x = quantised((1, 16, 9, 7), np.uint8)
    w = RNG.integers(0, 210, (16, 1 if depthwise else 16, 3, 3)).astype(np.uint8)
    w[5 : 5 + wide, 0, 1, 2] = 255
    bias = RNG.integers(-3000, 3000, 16).astype(np.int32)
    others = [scale(0.03), zero(121, np.uint8), w, scale(0.002), zero(90, np.uint8), scale(0.1),
              zero(40, np.uint8), bias]  # fmt: skip
    group = 16 if depthwise else 1
    return model("QLinearConv", x, others, TensorProto.UINT8, group=group, pads=[1, 1, 1, 1]), x


@pytest.mark.parametrize("depthwise", [False, True], ids=["full", "depthwise"])
@pytest.mark.parametrize("wide", [1, 2])
def test_a_few_weights_of_nine_bits(depthwise: bool, wide: int) -> None:
    proto, x = nine_bits(depthwise, wide)
    found = Counter(operators(lower_quantized(import_model(proto.SerializeToString()))))
    assert found["QuantizedConv2D"] == 2
    assert not found["Conv2D"]
    check(proto, x, None)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("depthwise", [False, True], ids=["full", "depthwise"])
def test_weights_of_nine_bits_in_emitted_code(depthwise: bool, target: str) -> None:
    require(target)
    proto, x = nine_bits(depthwise, 2)
    compiled = mdlc.compile(proto, target)
    assert integer_layers(compiled, [{"x": x}]).first_off is None
    (found,) = compiled.build().run_many([{"x": x}])
    (wanted,) = session(proto).run(None, {"x": x})
    (output,) = found.values()
    apart = np.abs(output.astype(int) - wanted.astype(int))
    assert apart.max() <= 1
    assert (apart > 0).mean() <= 0.01


def test_qlinear_matmul() -> None:
    x, w = quantised((3, 20)), quantised((20, 11))
    factors = RNG.uniform(0.001, 0.003, 11).astype(np.float32)
    others = [scale(0.03), zero(5), w, factors, np.zeros(11, np.int8), scale(0.05), zero(-9)]
    check(model("QLinearMatMul", x, others), x, ["QuantizedDense"])


@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
def test_qlinear_sum_and_product(op: str) -> None:
    x = quantised((2, 30))
    others = [scale(0.03), zero(5), "x", scale(0.07), zero(-20), scale(0.09), zero(11)]
    wide = ["DequantizeLinear", "DequantizeLinear", "Mul", "QuantizeLinear"]
    check(
        model(op, x, others, domain=MICROSOFT),
        x,
        ["QuantizedAdd"] if op == "QLinearAdd" else wide,
    )
    # An operand that is a constant: in float, with the same integers.
    others[2] = quantised((2, 30))
    wide = ["DequantizeLinear", op.removeprefix("QLinear"), "QuantizeLinear"]
    check(model(op, x, others, domain=MICROSOFT), x, wide)


@pytest.mark.parametrize(
    ("op", "attributes", "expected"),
    [
        ("QLinearSigmoid", {}, ["Lookup"]),
        ("QLinearLeakyRelu", {"alpha": 0.2}, ["Lookup"]),
        ("QLinearGlobalAveragePool", {}, ["QuantizedAveragePool2D"]),
        ("QLinearAveragePool", {"kernel_shape": [3, 3], "strides": [2, 2]},
         ["QuantizedAveragePool2D"]),
        ("QLinearAveragePool", {"kernel_shape": [3, 3], "channels_last": 1},
         ["Transpose", "QuantizedAveragePool2D", "Transpose"]),
    ],
)  # fmt: skip
def test_qlinear_of_one_input(op: str, attributes: dict[str, Any], expected: list[str]) -> None:
    x = quantised((1, 5, 7, 9), np.uint8)
    others = [scale(0.03), zero(128, np.uint8), scale(0.02), zero(77, np.uint8)]
    if op == "QLinearSigmoid":
        others[2:] = [scale(1 / 256), zero(0, np.uint8)]
    check(model(op, x, others, TensorProto.UINT8, MICROSOFT, **attributes), x, expected)


def test_qlinear_softmax() -> None:
    x = quantised((3, 40), np.uint8)
    others = [scale(0.03), zero(128, np.uint8), scale(1 / 256), zero(0, np.uint8)]
    proto = model("QLinearSoftmax", x, others, TensorProto.UINT8, MICROSOFT, axis=1, opset=13)
    check(proto, x, ["QuantizedSoftmax"])


def softmax_pairs() -> tuple[onnx.ModelProto, Array]:
    """A model of pairs: 1000 classes, and what it gives in float."""
    x = quantised((2, 1000))
    values = {"s": scale(0.07), "z": zero(-9), "t": scale(1 / 256), "u": zero(-128)}
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "s", "z"], ["f"]),
        helper.make_node("Softmax", ["f"], ["p"], axis=-1),
        helper.make_node("QuantizeLinear", ["p", "t", "u"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "t", "u"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.INT8, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), x


@pytest.mark.parametrize("target", TARGETS)
def test_softmax_of_pairs_in_emitted_code(target: str) -> None:
    require(target)
    proto, x = softmax_pairs()
    compiled = mdlc.compile(proto, target)
    assert operators(compiled.graph) == ["QuantizedSoftmax", "DequantizeLinear"]
    (found,) = compiled.build().run_many([{"x": x}])
    (wanted,) = session(proto).run(None, {"x": x})
    np.testing.assert_allclose(found["y"], wanted, atol=1 / 256)


def test_qlinear_concat() -> None:
    node = helper.make_node(
        "QLinearConcat", ["ys", "yz", "x", "ys", "yz", "b", "bs", "bz"], ["y0"],
        domain=MICROSOFT, axis=1,
    )  # fmt: skip
    x, b = quantised((1, 3, 4, 4)), quantised((1, 2, 4, 4))
    arrays = {"ys": scale(0.05), "yz": zero(3), "b": b, "bs": scale(0.02), "bz": zero(-4)}
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", TensorProto.INT8, x.shape)],
        [helper.make_tensor_value_info("y0", TensorProto.INT8, None)],
        [numpy_helper.from_array(v, k) for k, v in arrays.items()],
    )  # fmt: skip
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    proto = helper.make_model(graph, opset_imports=imports, ir_version=8)
    check(proto, x, ["Requantize", "Concat"])


@pytest.mark.parametrize("transposed", [0, 1])
def test_qgemm(transposed: int) -> None:
    x, w = quantised((2, 12)), quantised((7, 12) if transposed else (12, 7))
    bias = RNG.integers(-3000, 3000, 7).astype(np.int32)
    others = [scale(0.03), zero(5), w, scale(0.002), zero(0), bias, scale(0.01), zero(-9)]
    proto = model("QGemm", x, others, domain=MICROSOFT, transB=transposed)
    check(proto, x, ["QuantizedDense"])


@pytest.mark.parametrize("weight_zero", [None, 3, 120], ids=["none", "3", "120"])
@pytest.mark.parametrize("pads", [0, 1])
def test_conv_integer(weight_zero: int | None, pads: int) -> None:
    x, w = quantised((1, 4, 6, 5), np.uint8), quantised((3, 4, 3, 3), np.uint8)
    w.flat[:2] = 0, 255
    zeros = None if weight_zero is None else zero(weight_zero, np.uint8)
    others = [w, zero(77, np.uint8), zeros]
    proto = model("ConvInteger", x, others, TensorProto.INT32, pads=[pads] * 4)
    # 255 is 127 + 127 + 1.
    parts = 3 if weight_zero is None else 2
    check(proto, x, ["QuantizedConv2D"] + ["QuantizedConv2D", "Add"] * (parts - 1), 0)


def test_matmul_integer() -> None:
    x, w = quantised((4, 300)), quantised((300, 6))
    proto = model("MatMulInteger", x, [w, zero(-3), zero(0)], TensorProto.INT32)
    check(proto, x, ["QuantizedDense"], 0)


@pytest.mark.parametrize("values", ["mixed", "positive", "zeros"])
def test_dynamic_quantize_linear(values: str) -> None:
    x = {
        "mixed": RNG.uniform(-3, 5, (4, 9)),
        "positive": RNG.uniform(1, 5, (4, 9)),
        "zeros": np.zeros((4, 9)),
    }[values].astype(np.float32)
    proto = model("DynamicQuantizeLinear", x, [], outputs=3)
    for output, kind in zip(proto.graph.output, ("UINT8", "FLOAT", "UINT8"), strict=True):
        output.type.tensor_type.elem_type = TensorProto.DataType.Value(kind)
    graph = lower_quantized(import_model(proto.SerializeToString()))
    wanted = session(proto).run(None, {"x": x})
    found = run(graph, {"x": x})
    for name, value in zip(("y0", "y1", "y2"), wanted, strict=True):
        np.testing.assert_array_equal(found[name], value)


def dynamic_product(op: str) -> tuple[onnx.ModelProto, Array]:
    """DynamicQuantizeLinear and an integer product of what it makes."""
    conv = op == "ConvInteger"
    x = RNG.uniform(-3, 5, (1, 4, 6, 6) if conv else (3, 40)).astype(np.float32)
    w = quantised((5, 4, 3, 3) if conv else (40, 6))
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node(op, ["q", "w", "z"], ["y0"], **({"pads": [1, 1, 1, 1]} if conv else {})),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y0", TensorProto.INT32, None)],
        [numpy_helper.from_array(w, "w")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), x


@pytest.mark.parametrize("op", ["ConvInteger", "MatMulInteger"])
def test_dynamic_quantisation_of_a_product(op: str) -> None:
    """The zero point is known at run time only, and padding holds it."""
    proto, x = dynamic_product(op)
    (wanted,) = session(proto).run(None, {"x": x})
    found = run(lower_quantized(import_model(proto.SerializeToString())), {"x": x})["y0"]
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("op", ["ConvInteger", "MatMulInteger"])
def test_dynamic_quantisation_in_emitted_code(op: str, target: str) -> None:
    require(target)
    proto, x = dynamic_product(op)
    (wanted,) = session(proto).run(None, {"x": x})
    (found,) = mdlc.compile(proto, target).build().run_many([{"x": x}])
    np.testing.assert_array_equal(found["y0"], wanted)


@pytest.mark.parametrize(
    ("proto", "reason"),
    [
        (
            model("QLinearSigmoid", quantised((1, 4)), [scale(0.1), None, scale(0.1)],
                  domain="com.elsewhere"),
            "com.elsewhere.QLinearSigmoid",
        ),
        (
            model("QLinearConcat", quantised((1, 4)), [scale(0.1)], domain=MICROSOFT, axis=1),
            "has 2 inputs",
        ),
        (model("QLinearAdd", quantised((1, 4)), [scale(0.1)], domain=MICROSOFT), "is missing"),
    ],
    ids=["domain", "inputs", "missing"],
)  # fmt: skip
def test_what_is_not_known_is_refused(proto: onnx.ModelProto, reason: str) -> None:
    with pytest.raises(MdlcError, match=reason):
        import_model(proto.SerializeToString())
