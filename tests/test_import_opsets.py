"""Nodes of every age, one by one: imported and interpreted as ONNX Runtime computes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from mdlc.compiler.interpreter import run
from mdlc.compiler.onnx_import import import_model
from mdlc.compiler.op import Sample, random_array
from mdlc.compiler.types import Array
from tests.op_samples import feeds, onnx_model, samples


def imported(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> list[Array]:
    graph = import_model(model)
    named = {node.name: inputs[node.name] for node in graph.inputs}
    results = run(graph, named)
    for name, node in zip(graph.output_names, graph.outputs, strict=True):
        assert node.shape == results[name].shape
        assert node.type.dtype.numpy == results[name].dtype
    return [results[name] for name in graph.output_names]


def assert_same(actual: Array, expected: Array, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)
    else:
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("sample", [p for p in samples() if p.values[0].op.to_onnx() is not None])
def test_exported_operator_comes_back(sample: Sample) -> None:
    """from_onnx(to_onnx(op)) computes what op computes."""
    form = sample.op.to_onnx()
    assert form is not None
    (actual,) = imported(onnx_model(sample, form), feeds(sample))
    assert_same(actual, sample.op.reference(*sample.inputs), sample.rtol, sample.atol)


@dataclass(frozen=True)
class Case:
    """An ONNX node of some operator set.

    Attributes:
        inputs: values given at run time; constants: initialisers that follow them.
        outputs: how many.
    """

    op: str
    opset: int
    inputs: Sequence[Array]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    constants: Sequence[Array] = ()
    outputs: int = 1

    def __str__(self) -> str:
        details = [f"{k}={v}" for k, v in self.attributes.items()]
        details += [f"c={c.tolist()}" for c in self.constants]
        details += [f"{x.dtype}{list(x.shape)}" for x in self.inputs]
        return f"{self.op}-{self.opset}({','.join(details)})".replace(" ", "")


X = random_array(1, 2, 3, 4)
ONES = random_array(2, 2, 1, 4, 1)
POSITIVE = random_array(3, 2, 3, 4, low=0.1, high=3.0)
WHOLE = np.arange(-12, 12, dtype=np.int64).reshape(2, 3, 4)
REDUCTIONS = (
    "Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp",
)  # fmt: skip


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def reductions() -> list[Case]:
    """Axes as an attribute, then as an input; none given means all, or none at all."""
    found = []
    for kind in REDUCTIONS:
        op, moved = f"Reduce{kind}", 13 if kind == "Sum" else 18
        for opset in {7, 11, moved - 1}:
            found += [
                Case(op, opset, [POSITIVE]),
                Case(op, opset, [POSITIVE], {"axes": [1]}),
                Case(op, opset, [POSITIVE], {"axes": [0, 2], "keepdims": 0}),
            ]
        for opset in {moved, 18}:
            found += [
                Case(op, opset, [POSITIVE], {"keepdims": 0}),
                Case(op, opset, [POSITIVE], {}, [ints(-1)]),
                Case(op, opset, [POSITIVE], {"keepdims": 0}, [ints(0, -1)]),
                Case(op, opset, [POSITIVE], {}, [ints()]),
                Case(op, opset, [POSITIVE], {"noop_with_empty_axes": 1}),
                Case(op, opset, [-POSITIVE if kind[0] == "L" and len(kind) == 2 else POSITIVE],
                     {"noop_with_empty_axes": 1}, [ints()]),
            ]  # fmt: skip
    found += [Case("ReduceLogSum", 18, [np.abs(WHOLE) + 1], {"noop_with_empty_axes": 1})]
    found += [Case("ReduceLogSum", 13, [np.abs(WHOLE)], {"axes": [1]})]
    found += [Case("ReduceSum", 13, [WHOLE], {}, [ints(1)]), Case("ReduceMax", 12, [WHOLE])]
    found += [Case("ReduceMean", 13, [X], {"axes": [-1], "keepdims": 0})]
    return found


def normalisers() -> list[Case]:
    """Before operator set 13 over all axes from `axis` on, which was 1 where it is not given."""
    wide = random_array(4, 2, 3, 2, 5, low=-4.0, high=4.0)
    return [
        Case(op, opset, [wide], attributes)
        for op in ("Softmax", "LogSoftmax", "Hardmax")
        for opset in (7, 11, 12, 13, 18)
        for attributes in ({}, {"axis": 0}, {"axis": 1}, {"axis": 2}, {"axis": 3})
    ] + [
        Case(op, opset, [wide], {"axis": -2})
        for op in ("Softmax", "LogSoftmax", "Hardmax")
        for opset in (11, 13)
    ]


def moved_attributes() -> list[Case]:
    """What became an input later: bounds, axes, shapes, ratios."""
    low, high = np.array(-0.5, np.float32), np.array(0.25, np.float32)
    return [
        Case("Clip", 6 + 1, [X], {"min": -0.5, "max": 0.25}),
        Case("Clip", 10, [X], {"min": -0.5}),
        Case("Clip", 10, [X], {"max": 0.25}),
        Case("Clip", 11, [X], {}, [low, high]),
        Case("Clip", 13, [X], {}, [low]),
        Case("Clip", 13, [WHOLE], {}, [ints(-3).reshape(()), ints(4).reshape(())]),
        *(Case("Squeeze", opset, [ONES], {"axes": [1, 3]}) for opset in (7, 11, 12)),
        Case("Squeeze", 11, [ONES], {"axes": [-1]}),
        Case("Squeeze", 11, [ONES]),
        Case("Squeeze", 13, [ONES], {}, [ints(1, -1)]),
        Case("Squeeze", 13, [ONES]),
        *(Case("Unsqueeze", opset, [X], {"axes": [0, 3]}) for opset in (7, 11, 12)),
        Case("Unsqueeze", 11, [X], {"axes": [-1]}),
        Case("Unsqueeze", 13, [X], {}, [ints(-1, 0)]),
        *(Case("Dropout", opset, [X], {"ratio": 0.5}) for opset in (7, 10)),
        Case("Dropout", 12, [X], outputs=2),
        Case("Dropout", 13, [X], {}, [low * 0 + 0.5], outputs=2),
        *(Case("Flatten", opset, [X], {"axis": 2}) for opset in (7, 9, 13)),
        Case("Flatten", 13, [X], {"axis": -1}),
    ]


def arithmetic() -> list[Case]:
    """Element types and any number of operands."""
    row = random_array(5, 4, low=0.2, high=2.0)
    several = [X, row, random_array(6, 3, 1)]
    divisor = np.array([-5, 7, -2, 3], np.int64)
    truth = X > 0
    found = [Case(op, 8, several[:n]) for op in ("Sum", "Mean", "Max", "Min") for n in (1, 2, 3)]
    found += [Case(op, 18, several) for op in ("Sum", "Mean", "Max", "Min")]
    found += [Case(op, 13, [WHOLE, divisor]) for op in ("Add", "Sub", "Mul", "Div", "Max", "Mod")]
    found += [Case("Mod", 13, [WHOLE, divisor], {"fmod": 1})]
    found += [Case(op, 7, [WHOLE, divisor]) for op in ("Add", "Div", "Equal")]
    found += [Case(op, 16, [WHOLE, divisor]) for op in ("Less", "LessOrEqual", "GreaterOrEqual")]
    found += [Case(op, 7, [truth, truth[0]]) for op in ("And", "Or", "Xor", "Equal")]
    found += [Case("Not", 7, [truth]), Case("Where", 9, [truth, WHOLE, divisor])]
    found += [
        Case("Pow", 7, [POSITIVE, row]),
        Case("Pow", 12, [np.abs(WHOLE), np.array(0.5, np.float32)]),
        Case("Pow", 13, [X, ints(0, 1, 2, 3)]),
        Case("IsInf", 10, [np.array([np.inf, -np.inf, np.nan, 1.0], np.float32)]),
        Case("IsInf", 20, [np.array([np.inf, -np.inf], np.float32)], {"detect_negative": 0}),
        Case("ArgMax", 7, [WHOLE.astype(np.float32)], {"axis": 1}),
        Case("ArgMin", 11, [X], {"axis": -1, "keepdims": 0}),
        Case("ArgMax", 12, [np.round(X)], {"axis": 2, "select_last_index": 1}),
        Case("CumSum", 11, [X], {}, [np.array(-1, np.int32)]),
        Case("CumSum", 14, [WHOLE], {"exclusive": 1, "reverse": 1}, [np.array(1, np.int64)]),
        Case("CastLike", 15, [X * 9, WHOLE]),
    ]
    floats = (np.float16, np.float32, np.float64)
    every = (*floats, np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64,
             np.uint64, np.bool_)  # fmt: skip
    for source in every:
        values = (np.arange(24) % 5).reshape(2, 3, 4) + (0.75 if source in floats else 0)
        for target in every:
            to = helper.np_dtype_to_tensor_dtype(np.dtype(target))
            found.append(Case("Cast", 13, [values.astype(source)], {"to": to}))
    return found


def resizes() -> list[Case]:
    """Scales that float32 does not hold exactly: output sizes and nearest pixels hang on it."""
    image = random_array(7, 1, 2, 10, 7)
    empty = np.array([], np.float32)
    found = []
    for height, width in ((1.3, 0.6), (0.7, 2.3), (1 / 3, 1.7), (2.0, 3.0)):
        scales = np.array([1, 1, height, width], np.float32)
        sizes = ints(1, 2, int(10 * height), int(7 * width))
        for coordinates in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"):
            where = {"coordinate_transformation_mode": coordinates}
            for nearest in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
                how = {"mode": "nearest", "nearest_mode": nearest, **where}
                found.append(Case("Resize", 11, [image], how, [empty, scales]))
                found.append(Case("Resize", 13, [image], how, [empty, empty, sizes]))
            found.append(Case("Resize", 13, [image], {"mode": "linear", **where}, [empty, scales]))
        found += [Case("Resize", 10, [image], {"mode": m}, [scales]) for m in ("nearest", "linear")]
    up = [1.0, 1.0, 1.3, 2.0]
    for mode in ("nearest", "linear"):
        found.append(Case("Upsample", 7, [image], {"mode": mode, "scales": up}))
        found.append(Case("Upsample", 9, [image], {"mode": mode}, [np.array(up, np.float32)]))
    return found


def test_mask_of_an_old_dropout() -> None:
    """The specification leaves its values open before operator set 12 (ONNX Runtime writes 0)."""
    for opset, dtype in ((7, np.float32), (10, np.bool_)):
        y, mask = imported(model_of(Case("Dropout", opset, [X], outputs=2)), {"x0": X})
        np.testing.assert_array_equal(y, X)
        assert mask.dtype == dtype
        assert mask.shape == X.shape
        assert mask.all()


CASES = [*reductions(), *normalisers(), *moved_attributes(), *arithmetic(), *resizes()]


def model_of(case: Case) -> onnx.ModelProto:
    """The node in a model whose outputs have the types that ONNX infers."""
    names = [f"x{i}" for i in range(len(case.inputs))]
    constants = [numpy_helper.from_array(c, f"c{i}") for i, c in enumerate(case.constants)]
    outputs = [f"y{i}" for i in range(case.outputs)]
    node = helper.make_node(
        case.op, names + [c.name for c in constants], outputs, name="node", **case.attributes
    )
    graph = helper.make_graph(
        [node],
        "case",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for n, x in zip(names, case.inputs, strict=True)
        ],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        constants,
    )
    opsets = [helper.make_opsetid("", case.opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    if case.op == "Dropout" and case.outputs == 2 and case.opset == 7:
        mask = inferred.graph.output[1]  # onnx infers none: the specification says T
        mask.type.CopyFrom(inferred.graph.output[0].type)
    if case.op in ("Resize", "Upsample"):  # onnx multiplies by scales in float64, ONNX Runtime not
        inferred.graph.output[0].type.tensor_type.ClearField("shape")
        del inferred.graph.value_info[:]
    assert all(output.type.tensor_type.elem_type for output in inferred.graph.output)
    return inferred


@pytest.mark.parametrize("case", CASES, ids=str)
def test_node_agrees_with_onnxruntime(case: Case) -> None:
    model = model_of(case)
    inputs = {f"x{i}": x for i, x in enumerate(case.inputs)}
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = session.run(None, inputs)
    for actual, wanted in zip(imported(model, inputs), expected, strict=True):
        assert_same(actual, wanted, rtol=2e-3 if wanted.dtype == np.float16 else 1e-4)
