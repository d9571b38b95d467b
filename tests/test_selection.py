"""Operators that choose by index, as imported, interpreted and emitted, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
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
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.interpreter import run
from mdlc.compiler.ir import Graph, make
from mdlc.compiler.onnx_import import import_model
from mdlc.compiler.op import Op
from mdlc.compiler.ops.gather import Gather
from mdlc.compiler.ops.gather_elements import GatherElements
from mdlc.compiler.ops.gather_nd import GatherND
from mdlc.compiler.ops.input import graph_input
from mdlc.compiler.ops.scatter_elements import ScatterElements
from mdlc.compiler.ops.scatter_nd import ScatterND
from mdlc.compiler.types import Array, DType
from mdlc.passes.layout import assign_layout
from tests.targets import require

REDUCTIONS = ("none", "add", "mul", "max", "min")
Drawn = tuple[onnx.ModelProto, dict[str, Array]]


def one_node(
    kind: str,
    arrays: dict[str, Array],
    constants: Sequence[str] = (),
    outputs: Sequence[str] = ("y",),
    types: Sequence[int] = (),
    **attributes: Any,
) -> Drawn:
    """A model of one operator; inputs named in `constants` are initialisers."""
    node = helper.make_node(kind, list(arrays), list(outputs), name="node", **attributes)
    kinds = {n: helper.np_dtype_to_tensor_dtype(a.dtype) for n, a in arrays.items()}
    first = next(iter(kinds.values()))
    graph = helper.make_graph(
        [node],
        "selection",
        [
            helper.make_tensor_value_info(name, kinds[name], array.shape)
            for name, array in arrays.items()
            if name not in constants
        ],
        [
            helper.make_tensor_value_info(name, dtype, None)
            for name, dtype in zip(outputs, types or [first] * len(outputs), strict=True)
        ],
        [onnx.numpy_helper.from_array(arrays[name], name) for name in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return model, {name: array for name, array in arrays.items() if name not in constants}


@st.composite
def models(draw: st.DrawFn) -> Drawn:
    kind = draw(
        st.sampled_from(["GatherElements", "GatherND", "ScatterElements", "ScatterND", "TopK"])
    )
    random = np.random.default_rng(draw(st.integers(0, 99)))
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=1, max_size=4)))
    dtype = draw(st.sampled_from([np.float32, np.int64, np.int32, np.uint8]))
    index_type = draw(st.sampled_from([np.int64, np.int32]))

    def values(*dims: int) -> Array:
        # Few, so that equal ones meet, and products of integers stay small.
        return random.integers(0, 4, dims).astype(dtype)

    arrays: dict[str, Array] = {"x": values(*shape)}
    axis = draw(st.integers(0, len(shape) - 1))
    if kind == "TopK":
        if dtype is np.uint8:
            arrays["x"] = arrays["x"].astype(np.float32)
        count = draw(st.integers(1, shape[axis]))
        arrays["k"] = np.array([count], np.int64)
        return one_node(
            kind, arrays, ["k"], ["y", "at"],
            [helper.np_dtype_to_tensor_dtype(arrays["x"].dtype), onnx.TensorProto.INT64],
            axis=axis - len(shape), largest=draw(st.integers(0, 1)),
        )  # fmt: skip
    reduction = draw(st.sampled_from(REDUCTIONS)) if kind.startswith("Scatter") else "none"
    attributes: dict[str, Any] = {"reduction": reduction} if kind.startswith("Scatter") else {}
    if kind.endswith("Elements"):
        dims = [draw(st.integers(1, d)) for d in shape]
        if reduction == "none":  # every entry once, so that the order does not matter
            order = np.argsort(random.random((*dims[:axis], shape[axis], *dims[axis + 1 :])), axis)
            arrays["indices"] = np.take(order, range(dims[axis]), axis).astype(index_type)
        else:
            dims[axis] = draw(st.integers(1, 9))
            arrays["indices"] = random.integers(-shape[axis], shape[axis], dims).astype(index_type)
        attributes["axis"] = axis
        if kind == "ScatterElements":
            arrays["updates"] = values(*dims)
    else:
        batch = draw(st.integers(0, len(shape) - 1)) if kind == "GatherND" else 0
        depth = draw(st.integers(1, len(shape) - batch))
        inner = shape[batch : batch + depth]
        if reduction == "none" and kind == "ScatterND":
            places = random.permutation(np.stack(np.indices(inner), -1).reshape(-1, depth))
            places = places[: draw(st.integers(1, len(places)))]
        else:
            count = draw(st.integers(1, 5))
            places = np.stack(
                [random.integers(-d, d, (*shape[:batch], count)) for d in inner], axis=-1
            )
        arrays["indices"] = places.astype(np.int64)
        if kind == "ScatterND":
            arrays["updates"] = values(*places.shape[:-1], *shape[depth:])
        else:
            attributes["batch_dims"] = batch
    constants = [name for name in arrays if draw(st.booleans())]
    return one_node(kind, arrays, constants[: len(arrays) - 1], **attributes)


def assert_as_onnxruntime(actual: dict[str, Array], drawn: Drawn) -> None:
    model, values = drawn
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    for name, expected in zip(names, session.run(None, values), strict=True):
        assert actual[name].dtype == expected.dtype
        np.testing.assert_array_equal(actual[name], expected, err_msg=name)


@settings(deadline=None, max_examples=200)
@given(models())
def test_interpreted(drawn: Drawn) -> None:
    assert_as_onnxruntime(run(import_model(drawn[0]), drawn[1]), drawn)


@pytest.mark.parametrize("target", ["generic", "arm-neon"])
@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(models())
def test_emitted(target: str, drawn: Drawn) -> None:
    require(target)
    plan = lower(assign_layout(import_model(drawn[0])), find_isa(target), "Layer", threads=2)
    assert_as_onnxruntime(Executable(plan)(drawn[1]), drawn)


OUTSIDE = np.array([[9, -9, 2, -3, 1 << 40]], np.int64)


@pytest.mark.parametrize(
    ("op", "index", "expected"),
    [
        # 5 entries, so that the nearest are 4, 0, 2, 2 and 4.
        (Gather(1), OUTSIDE[0], [[14, 10, 12, 12, 14]]),
        (GatherElements(1), OUTSIDE, [[14, 10, 12, 12, 14]]),
        (GatherND(1), OUTSIDE.reshape(1, 5, 1), [[14, 10, 12, 12, 14]]),
        (ScatterElements(1, "add"), OUTSIDE, [[10, 11, 19, 13, 14]]),
        (ScatterND("add"), np.stack([OUTSIDE[0] * 0, OUTSIDE[0]], -1), [[10, 11, 19, 13, 14]]),
    ],
)
def test_indices_outside_touch_nothing_else(op: Op, index: Array, expected: list[Any]) -> None:
    """Gathers take the nearest entry, scatters leave it; the sanitizers see no access outside."""
    x = np.array([[10, 11, 12, 13, 14]], np.int64)
    values = {"x": x, "index": index}
    if isinstance(op, ScatterElements | ScatterND):
        values["new"] = np.array([[1, 2, 3, 4, 5]], np.int64)
        values["new"] = values["new"].reshape(index.shape if index.shape == x.shape else (5,))
    inputs = [graph_input(n, v.shape, DType.from_numpy(v.dtype)) for n, v in values.items()]
    graph = Graph(tuple(inputs), (make(op, *inputs, name="y"),), ("y",))
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    plan = lower(assign_layout(graph), find_isa("generic"), "Outside")
    assert Executable(plan, flags=flags)(values)["y"].tolist() == expected


def test_nan_is_the_largest_of_top_k() -> None:
    x = np.array([1, np.nan, 3, -np.inf, np.inf, np.nan], np.float32)
    for largest, expected in ((1, [1, 5, 4, 2, 0, 3]), (0, [3, 0, 2, 4, 1, 5])):
        model, values = one_node(
            "TopK", {"x": x, "k": np.array([6])}, ["k"], ["y", "at"], [1, 7], largest=largest
        )
        plan = lower(assign_layout(import_model(model)), find_isa("generic"), "Order")
        assert Executable(plan)(values)["at"].tolist() == expected
        assert run(import_model(model), values)["at"].tolist() == expected


@pytest.mark.parametrize(
    ("kind", "arrays", "reason"),
    [
        ("GatherElements", {"x": np.zeros((2, 3)), "i": np.full((2, 3), 2)}, "outside axis 0"),
        ("GatherND", {"x": np.zeros((2, 3)), "i": np.array([[0, 3]])}, "outside axis 1"),
        ("TopK", {"x": np.zeros((2, 3)), "i": np.array([4])}, "has no 4 entries along axis 1"),
    ],
)
def test_constant_indices_outside_are_refused(
    kind: str, arrays: dict[str, Array], reason: str
) -> None:
    outputs = ["y", "at"] if kind == "TopK" else ["y"]
    model, _ = one_node(kind, arrays, ["i"], outputs)
    with pytest.raises(MdlcError, match=rf"node 'node' \({kind}\): .*{reason}"):
        import_model(model)
