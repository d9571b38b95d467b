"""Double precision and integers where networks rarely have them, and parameters at run time."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

import mdlc
from mdlc.compiler.interpreter import run
from mdlc.compiler.onnx_import import import_model
from mdlc.compiler.types import Array
from tests.targets import require

OPSET = 22
X = (2, 4, 6, 5)
AXES = np.array([1, 3], np.int64)
REDUCTIONS = ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare")
# Operator, shapes of further inputs, attributes.
Form = tuple[str, tuple[tuple[int, ...], ...], dict[str, Any]]
NUMBERS: tuple[Form, ...] = (
    ("MatMul", ((2, 4, 5, 3),), {}),
    ("Max", ((5,),), {}),
    ("Min", ((4, 1, 1),), {}),
)
FLOATS: tuple[Form, ...] = (
    ("Conv", ((6, 2, 3, 2), (6,)), {"group": 2, "pads": [1, 0, 1, 1], "strides": [2, 1]}),
    ("ConvTranspose", ((4, 6, 3, 2), (6,)), {"strides": [2, 1], "pads": [1, 0, 0, 1]}),
    ("MaxPool", (), {"kernel_shape": [2, 3], "strides": [2, 1], "pads": [1, 0, 0, 1]}),
    ("AveragePool", (), {"kernel_shape": [2, 3], "strides": [2, 1], "pads": [1, 0, 0, 1]}),
    ("GlobalAveragePool", (), {}),
    ("Softmax", (), {"axis": 1}),
    ("LogSoftmax", (), {"axis": 3}),
    ("InstanceNormalization", ((4,), (4,)), {}),
    ("Sigmoid", (), {}),
    ("Elu", (), {"alpha": 0.7}),
    ("Selu", (), {}),
    ("HardSigmoid", (), {"alpha": 0.25}),
    ("Tanh", (), {}),
)


def _values(kind: Any, shape: tuple[int, ...], seed: int) -> Array:
    rng = np.random.default_rng(seed)
    if np.dtype(kind).kind == "f":
        return rng.uniform(-2, 2, shape).astype(kind)
    return rng.integers(0 if np.dtype(kind).kind == "u" else -9, 10, shape).astype(kind)


def _of_type(kind: Any) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Every operator that the type has, on one input."""
    elements = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    forms = [*NUMBERS, *(FLOATS if np.dtype(kind).kind == "f" else ())]
    nodes, outputs = [], []
    inputs = {"x": _values(kind, X, 0)}
    for number, (op, shapes, attributes) in enumerate(forms):
        name = f"{op.lower()}_{number}"
        for i, shape in enumerate(shapes):
            inputs[f"{name}_{i}"] = _values(kind, shape, 1 + i)
        names = ["x", *(f"{name}_{i}" for i in range(len(shapes)))]
        nodes.append(helper.make_node(op, names, [name], **attributes))
        outputs.append(name)
    for reduction in REDUCTIONS:
        if kind in (np.int8, np.uint8) and reduction not in ("Max", "Min"):
            continue
        if kind in (np.int32, np.uint32) and reduction == "SumSquare":  # there in 64 bits
            continue
        name = f"reduce_{reduction.lower()}"
        nodes.append(helper.make_node(f"Reduce{reduction}", ["x", "axes"], [name]))
        outputs.append(name)
    if kind in (np.int8, np.uint8):
        nodes, outputs = nodes[1:], outputs[1:]
        del inputs["matmul_0_0"]
    graph = helper.make_graph(
        nodes,
        "types",
        [helper.make_tensor_value_info(k, elements, v.shape) for k, v in inputs.items()],
        [helper.make_tensor_value_info(name, elements, None) for name in outputs],
        [onnx.numpy_helper.from_array(AXES, "axes")],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10), inputs


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (np.float64, "generic"),
        (np.float64, "arm-neon+fp16"),
        *((kind, "generic") for kind in (np.int8, np.uint8, np.int32, np.uint32, np.int64)),
        (np.uint64, "arm-neon"),
    ],
)
def test_every_operator_in_a_type(kind: Any, target: str) -> None:
    require(target)
    model, inputs = _of_type(kind)
    expected = onnx.reference.ReferenceEvaluator(model).run(None, inputs)
    emitted = mdlc.compile(model, target, name="Net").build()(inputs)
    interpreted = run(import_model(model), inputs)
    for output, value in zip(model.graph.output, expected, strict=True):
        for found in (emitted[output.name], interpreted[output.name]):
            assert found.dtype == value.dtype, output.name
            if np.dtype(kind).kind == "f":
                np.testing.assert_allclose(found, value, 1e-12, 1e-12, err_msg=output.name)
            else:
                np.testing.assert_array_equal(found, value, err_msg=output.name)


@st.composite
def run_time_parameters(draw: st.DrawFn) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Products, convolutions and normalisations, any of whose parameters may be inputs."""
    op = draw(st.sampled_from(["Conv", "Conv", "ConvTranspose", "Gemm", "MatMul",
                               "BatchNormalization", "InstanceNormalization",
                               "LayerNormalization"]))  # fmt: skip
    attributes: dict[str, Any] = {}
    size = [draw(st.integers(4, 9)), draw(st.integers(4, 9))]
    if op in ("Conv", "ConvTranspose"):
        rank = draw(st.sampled_from([1, 2, 2]))
        groups = draw(st.sampled_from([1, 1, 2, 4]))
        channels, filters = groups * draw(st.integers(1, 5)), groups * draw(st.integers(1, 5))
        kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
        attributes = {
            "group": groups,
            "strides": [draw(st.integers(1, 3)) for _ in kernel],
            "pads": [draw(st.integers(0, k - 1)) for k in (*kernel, *kernel)],
            "dilations": [draw(st.integers(1, 2)) if op == "Conv" else 1 for _ in kernel],
        }
        shape: tuple[int, ...] = (draw(st.integers(1, 2)), channels, *size[:rank])
        first = (filters, channels // groups) if op == "Conv" else (channels, filters // groups)
        shapes: list[tuple[int, ...]] = [(*first, *kernel), (filters,)]
    elif op in ("Gemm", "MatMul"):
        shape = tuple(size)
        shapes = [(size[1], draw(st.integers(1, 9)))]
        if op == "Gemm":
            attributes = {"alpha": 0.5, "beta": 2.0}
            shapes.append((shapes[0][1],))
    else:
        channels = draw(st.integers(1, 6))
        shape = (2, channels, *size)
        per = (size[1],) if op == "LayerNormalization" else (channels,)
        shapes = [per] * (4 if op == "BatchNormalization" else 2)
    values = [_values(np.float32, each, i) for i, each in enumerate([shape, *shapes])]
    if op == "BatchNormalization":
        values[4] = np.abs(values[4]) + np.float32(0.5)
    inputs, constants = {"x0": values[0]}, []
    for i, value in enumerate(values[1:], 1):
        if draw(st.booleans()):
            inputs[f"x{i}"] = value
        else:
            constants.append(onnx.numpy_helper.from_array(value, f"x{i}"))
    nodes = [helper.make_node(op, [f"x{i}" for i in range(len(values))], ["m"], **attributes)]
    behind = draw(st.sampled_from(["Relu", "Sigmoid", "Identity"]))
    nodes.append(helper.make_node(behind, ["m"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "parameters",
        [helper.make_tensor_value_info(k, 1, v.shape) for k, v in inputs.items()],
        [helper.make_tensor_value_info("y", 1, None)],
        constants,
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9), inputs


def _expected(model: onnx.ModelProto, inputs: dict[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()  # its optimiser stops at some 1-D convolutions
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [np.asarray(value) for value in session.run(None, inputs)]


@pytest.mark.parametrize("target", ["generic", "x86-avx512", "arm-neon+fp16"])
@settings(max_examples=3)
@given(case=run_time_parameters())
def test_parameters_at_run_time(
    target: str, case: tuple[onnx.ModelProto, dict[str, Array]]
) -> None:
    require(target)
    model, inputs = case
    (expected,) = _expected(model, inputs)
    emitted = mdlc.compile(model, target, name="Net").build()(inputs)["y"]
    np.testing.assert_allclose(emitted, expected, 1e-4, 1e-4)


@settings(max_examples=20)
@given(case=run_time_parameters())
def test_parameters_at_run_time_interpreted(
    case: tuple[onnx.ModelProto, dict[str, Array]],
) -> None:
    model, inputs = case
    (expected,) = _expected(model, inputs)
    compiled = mdlc.compile(model, name="Net")  # every kernel is found
    assert compiled.files()
    found = run(import_model(model), inputs)["y"]
    np.testing.assert_allclose(found, expected, 1e-4, 1e-4)


LARGE = np.array([2**53 + 1, -(2**53) - 3, 2**63 - 1, -(2**63), 3, -7, 0, 1, -1], np.int64)


@pytest.mark.parametrize("target", ["generic", "arm-neon"])
def test_large_integers_are_exact(target: str) -> None:
    """What float64 does not hold, what does not fit, and division by zero, which does not trap."""
    require(target)
    a = np.repeat(LARGE, len(LARGE))
    b = np.tile(LARGE, len(LARGE))
    unsigned = np.array([2**64 - 1, 2**63 + 5, 7], np.uint64)
    inputs = {"a": a, "b": b, "u": unsigned, "n": b % 4}
    constants = {"low": np.array(-(2**53) - 1), "high": np.array(2**62 + 1),
                 "fill": np.array(-(2**63)), "pads": np.array([1, 2]),
                 "top": np.array(2**64 - 1, np.uint64), "least": LARGE[3:4]}  # fmt: skip
    forms = {
        "clip": ("Clip", "a low high"), "pad": ("Pad", "a pads fill"), "div": ("Div", "a b"),
        "mod": ("Mod", "a b"), "pow": ("Pow", "a n"), "max": ("Max", "a least"),
        "upad": ("Pad", "u pads top"), "add": ("Add", "a high"), "where": ("Where", "less a b"),
        "less": ("Less", "a b"), "by_constant": ("Div", "a least"),
    }  # fmt: skip
    nodes = [helper.make_node(op, names.split(), [name]) for name, (op, names) in forms.items()]
    nodes.sort(key=lambda node: node.op_type != "Less")
    kinds = {name: 7 for name in forms} | {"upad": 13, "less": 9}
    graph = helper.make_graph(
        nodes,
        "exact",
        [helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
         for k, v in inputs.items()],
        [helper.make_tensor_value_info(k, kind, None) for k, kind in kinds.items()],
        [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)

    def wrapped(value: int) -> int:
        return (value + 2**63) % 2**64 - 2**63

    def towards_zero(x: int, y: int) -> int:
        return 0 if y == 0 else abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)

    x, y = a.tolist(), b.tolist()
    expected = {
        "clip": np.clip(a, constants["low"], constants["high"]),
        "pad": np.pad(a, (1, 2), constant_values=constants["fill"]),
        "div": np.array([wrapped(towards_zero(p, q)) for p, q in zip(x, y, strict=True)]),
        "mod": np.array([0 if q == 0 else p % q for p, q in zip(x, y, strict=True)]),
        "pow": np.array([wrapped(p**q) for p, q in zip(x, (b % 4).tolist(), strict=True)]),
        "max": a,
        "upad": np.pad(unsigned, (1, 2), constant_values=constants["top"]),
        "add": a + constants["high"],
        "where": np.where(a < b, a, b),
        "by_constant": np.array([wrapped(towards_zero(p, -(2**63))) for p in x]),
    }
    with np.errstate(all="ignore"):
        found = run(import_model(model), inputs)
    emitted = mdlc.compile(model, target, name="Net").build()(inputs)
    for name, value in expected.items():
        np.testing.assert_array_equal(emitted[name], value, err_msg=name)
        np.testing.assert_array_equal(found[name], value, err_msg=f"{name}, interpreted")


@pytest.mark.parametrize("target", ["generic", "x86-avx2", "x86-avx512", "arm-neon"])
def test_values_that_are_no_usual_numbers(target: str) -> None:
    """NaN in either operand, infinities, and logarithms of subnormal numbers."""
    require(target)
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, 1.5, -2.5, 3e-39, 1e-45], np.float32)
    inputs = {
        "a": np.repeat(odd, len(odd)),
        "b": np.tile(odd, len(odd)),
        "tiny": np.array([1e-45, 3e-42, 1e-39, 1.1e-38, 1.3e-38, 1e-30, 1.0, 7.5] * 3, np.float32),
        "rows": np.array([[np.inf, 1, 2], [-np.inf] * 3, [-np.inf, 0.5, 0], [np.inf, np.nan, 1],
                          [-np.inf, np.inf, 3e38]], np.float32),
    }  # fmt: skip
    forms = {"max": ("Max", "a b"), "min": ("Min", "a b"), "sign": ("Sign", "a"),
             "log": ("Log", "tiny"), "sum": ("ReduceLogSumExp", "rows")}  # fmt: skip
    nodes = [
        helper.make_node(op, names.split(), [name], **({"axes": [1]} if name == "sum" else {}))
        for name, (op, names) in forms.items()
    ]
    graph = helper.make_graph(
        nodes,
        "odd",
        [helper.make_tensor_value_info(k, 1, v.shape) for k, v in inputs.items()],
        [helper.make_tensor_value_info(k, 1, None) for k in forms],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    emitted = mdlc.compile(model, target, name="Net").build()(inputs)
    with np.errstate(all="ignore"):
        found = run(import_model(model), inputs)
    a, b = inputs["a"], inputs["b"]
    top = np.float32(np.nan)
    expected = {
        "max": np.maximum(a, b), "min": np.minimum(a, b), "sign": np.sign(a),
        "log": np.log(inputs["tiny"].astype(np.float64)),
        "sum": np.array([np.inf, -np.inf, np.log(np.exp(0.5) + 1), top, np.inf])[:, None],
    }  # fmt: skip
    for name, value in expected.items():
        np.testing.assert_allclose(emitted[name], value, 1e-6, err_msg=name)
        np.testing.assert_allclose(found[name], value, 1e-6, err_msg=f"{name}, interpreted")
