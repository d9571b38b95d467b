"""Tensors whose length depends on data, interpreted and emitted, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

import mdlc
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.interpreter import run
from mdlc.compiler.onnx_import import import_model
from mdlc.compiler.ops.slice import taken_of
from mdlc.compiler.types import Array
from mdlc.inspection import graph_at_stage
from tests.onnx_models import model, node, value, weight

I64 = TensorProto.INT64
Drawn = tuple[onnx.ModelProto, dict[str, Array]]


def expected(proto: onnx.ModelProto, values: Mapping[str, Array]) -> dict[str, Array]:
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(values)), strict=True))


def check(actual: Mapping[str, Array], wanted: Mapping[str, Array]) -> None:
    for name, array in wanted.items():
        assert actual[name].dtype == array.dtype
        np.testing.assert_array_equal(actual[name], array, err_msg=name)


def suppression(seed: int, centers: int, **numbers: float) -> Drawn:
    random = np.random.default_rng(seed)
    batch, classes, boxes = (int(random.integers(1, top)) for top in (3, 4, 30))
    given_boxes = random.uniform(0, 1, (batch, boxes, 4)).astype(np.float32)
    # Few scores, so that equal ones meet.
    scores = random.integers(0, 9, (batch, classes, boxes)).astype(np.float32) / 8
    names = [name for name in ("most", "overlap", "least") if name in numbers]
    kinds = {"most": np.int64, "overlap": np.float32, "least": np.float32}
    inputs = " ".join(n if n in names else "_" for n in kinds)
    proto = model(
        [node("NonMaxSuppression", f"boxes scores {inputs}", "y", center_point_box=centers)],
        [value("boxes", given_boxes.shape), value("scores", scores.shape)],
        [value("y", (None, 3), I64)],
        [weight(name, [numbers[name]], kinds[name]) for name in names],
    )
    return proto, {"boxes": given_boxes, "scores": scores}


@given(
    st.integers(0, 9999),
    st.integers(0, 1),
    st.fixed_dictionaries(
        {"most": st.integers(1, 40)},
        optional={"overlap": st.sampled_from([0.0, 0.2, 0.7, 1.0]),
                  "least": st.sampled_from([0.0, 0.5, 2.0])},
    ),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_suppression(seed: int, centers: int, numbers: dict[str, float]) -> None:
    proto, values = suppression(seed, centers, **numbers)
    graph = import_model(proto)
    check(graph.cut(run(graph, values)), expected(proto, values))


@st.composite
def choices(draw: st.DrawFn) -> Drawn:
    """NonZero, Compress or Unique of a few different values."""
    kind = draw(st.sampled_from(["NonZero", "Compress", "Unique"]))
    random = np.random.default_rng(draw(st.integers(0, 999)))
    shape = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    x = random.integers(0, 3, shape).astype(draw(st.sampled_from([np.float32, np.int64])))
    kinds = onnx.helper.np_dtype_to_tensor_dtype(x.dtype)
    axis = draw(st.none() | st.integers(-len(shape), len(shape) - 1))
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
    inputs, values = [value("x", shape, kinds)], {"x": x}
    if kind == "NonZero":
        return model([node(kind, "x", "y")], inputs, [value("y", None, I64)]), values
    if kind == "Compress":
        length = x.size if axis is None else shape[axis]
        mask = random.integers(0, 2, draw(st.integers(1, length))).astype(np.bool_)
        inputs.append(value("mask", mask.shape, TensorProto.BOOL))
        made = node(kind, "x mask", "y", **attributes)
        return model([made], inputs, [value("y", None, kinds)]), {**values, "mask": mask}
    outputs = [value("y", None, kinds), *(value(n, None, I64) for n in ("first", "which", "many"))]
    made = node(kind, "x", "y first which many", sorted=draw(st.integers(0, 1)), **attributes)
    return model([made], inputs, outputs), values


@given(choices())
@settings(max_examples=80, deadline=None)
def test_choices(drawn: Drawn) -> None:
    proto, values = drawn
    graph = import_model(proto)
    check(graph.cut(run(graph, values)), expected(proto, values))


def detection() -> Drawn:
    """Boxes that suppression keeps and their scores, as detectors end."""
    random = np.random.default_rng(1)
    values = {
        "boxes": random.uniform(0, 1, (1, 40, 4)).astype(np.float32),
        "scores": random.uniform(0, 1, (1, 2, 40)).astype(np.float32),
    }
    nodes = [
        node("NonMaxSuppression", "boxes scores most overlap least", "rows"),
        node("Slice", "rows two three axis", "box"),
        node("Squeeze", "box axis", "box1"),
        node("Gather", "boxes box1", "kept", axis=1),
        node("Squeeze", "kept zero", "kept2"),
        node("Mul", "kept2 size", "scaled"),
        node("ReduceMax", "scaled", "largest", axes=[1], keepdims=0),
        node("GatherND", "scores rows", "score"),
        node("Unsqueeze", "score axis", "score2"),
        node("Concat", "scaled score2", "found", axis=1),
        node("Slice", "found zero three", "best"),
        node("Shape", "found", "shape"),
    ]
    weights = [
        weight("most", [20], np.int64), weight("overlap", [0.1]), weight("least", [0.1]),
        weight("two", [2], np.int64), weight("three", [3], np.int64),
        weight("axis", [1], np.int64), weight("zero", [0], np.int64),
        weight("size", [640, 480, 640, 480]),
    ]  # fmt: skip
    outputs = [
        value("rows", (None, 3), I64), value("found", (None, 5)), value("largest", (None,)),
        value("best", (None, 5)), value("shape", (2,), I64),
    ]  # fmt: skip
    inputs = [value(name, array.shape) for name, array in values.items()]
    return model(nodes, inputs, outputs, weights), values


@pytest.mark.parametrize("target", ["generic", "x86-avx2"])
def test_counts_are_carried_on(target: str) -> None:
    proto, values = detection()
    compiled = mdlc.compile(proto, target)
    wanted = expected(proto, values)
    results = compiled.build()(values)
    assert results["rows"].shape == (40, 3)
    assert int(results["rows_count"][0]) == len(wanted["rows"]) < 40
    assert (results["rows"][len(wanted["rows"]) :] == -1).all()
    assert results["best_count"][0] == 3
    check(compiled.imported.cut(results), wanted)
    assert "only the first rows_count entries mean anything" in " ".join(
        compiled.files()[f"{compiled.name}.h"].decode().replace("//", "").split()
    )


def test_a_bound_keeps_the_first() -> None:
    proto, values = detection()
    del proto.graph.output[1:]
    compiled = mdlc.compile(proto, "generic", bound=["rows=3"])
    results = compiled.build()(values)
    assert results["rows_count"][0] == 3
    np.testing.assert_array_equal(results["rows"], expected(proto, values)["rows"][:3])


def test_inspecting_heeds_bounds(tmp_path: Path) -> None:
    proto, _ = detection()
    onnx.save(proto, tmp_path / "m.onnx")
    options = mdlc.CompileOptions("generic", bound=["rows=3"])
    graph = graph_at_stage(tmp_path / "m.onnx", options, None)
    assert graph.outputs[graph.output_names.index("rows")].shape[0] == 3


def refused(nodes: list[onnx.NodeProto], **options: Any) -> str:
    outputs = [value(nodes[-1].output[0], None, TensorProto.UNDEFINED)]
    proto = model(nodes, [value("x", (3, 4))], outputs, [weight("axis", [1], np.int64)])
    with pytest.raises(MdlcError) as error:
        import_model(proto, **options)
    return str(error.value)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("CumSum", "at axis", "y", reverse=1)], "CumSum mixes the entries of 'at'"),
        ([node("NonZero", "at", "a"), node("Cast", "at", "b", to=1)], ""),
        ([node("NonZero", "x", "more"), node("Add", "at more", "y")], "Add combines two lists"),
    ],
)  # fmt: skip
def test_what_mixes_entries_is_refused(nodes: list[onnx.NodeProto], message: str) -> None:
    if not message:
        # Entries are found among entries: those behind the count would be found, too.
        nodes, message = nodes[:1], "NonZero mixes the entries of 'at'"
    text = refused([node("NonZero", "x", "at"), *nodes])
    assert message in text
    assert "cut the model before it" in text


def test_what_a_bound_may_be() -> None:
    one = [node("NonZero", "x", "at")]
    message = refused(one, bounds={"it": 3})
    assert "'it' is no tensor whose length depends on data; those of this model are: at" in message
    with pytest.raises(MdlcError, match="'at=0' is not a bound; write --bound selected=100"):
        mdlc.compile(model(one), bound=["at=0"])


def _slice(names: str, given: list[onnx.ValueInfoProto], **weights: list[int]) -> onnx.ModelProto:
    return model(
        [node("Slice", names, "y")],
        [value("x", (5, 7)), *given],
        [value("y", (None, None))],
        [weight(name, values, np.int64) for name, values in weights.items()],
    )


@given(st.integers(-9, 9), st.integers(-9, 9), st.sampled_from([-3, -1, 1, 2]), st.integers(0, 1))
@settings(max_examples=20)
def test_bounds_of_a_slice_at_run_time(start: int, end: int, step: int, axis: int) -> None:
    proto = _slice("x s e a t", [value("e", (1,), I64)], s=[start], a=[axis], t=[step])
    x = np.arange(35, dtype=np.float32).reshape(5, 7)
    values = {"x": x, "e": np.array([end], np.int64)}
    graph = import_model(proto)
    check(graph.cut(run(graph, values)), expected(proto, values))


@pytest.mark.parametrize("target", ["generic", "x86-avx2"])
def test_a_slice_at_run_time_is_emitted(target: str) -> None:
    proto = _slice("x s e a t", [value(n, (1,), I64) for n in "set"], a=[1])
    built = mdlc.compile(proto, target, name="Net").build()
    x = np.arange(35, dtype=np.float32).reshape(5, 7)
    far = np.iinfo(np.int64)
    for s, e, t in ((1, 6, 2), (-1, far.min, -1), (0, far.max, far.max), (6, 2, 1)):
        given = {"x": x, **{n: np.array([v]) for n, v in zip("set", (s, e, t), strict=True)}}
        found = mdlc.compile(proto, target, name="Net").imported.cut(built(given))["y"]
        np.testing.assert_array_equal(found, x[:, [*taken_of(7, s, e, t)]])


def test_a_window_that_moves_has_no_count() -> None:
    proto = model(
        [node("Add", "s three", "e"), node("Slice", "x s e", "y")],
        [value("x", (7,)), value("s", (1,), I64)],
        [value("y", (3,))],
        [weight("three", [3], np.int64)],
    )
    graph = import_model(proto)
    assert graph.output_names == ("y",)
    found = run(graph, {"x": np.arange(7, dtype=np.float32), "s": np.array([2])})["y"]
    np.testing.assert_array_equal(found, [2, 3, 4])


def test_shapes_that_depend_on_data() -> None:
    """Zeros of as many rows as were found, added to those."""
    proto = model(
        [
            node("NonZero", "b", "i"), node("Squeeze", "i zero", "j"),
            node("Gather", "x j", "rows"), node("Shape", "rows", "shape"),
            node("ConstantOfShape", "shape", "zeros"), node("Add", "rows zeros", "y"),
            node("Reshape", "y shape", "z"), node("Expand", "one shape", "w"),
        ],
        [value("x", (5, 3)), value("b", (5,), TensorProto.BOOL)],
        [value(n, (None, 3)) for n in ("y", "z", "w")],
        [weight("zero", [0], np.int64), weight("one", [1], np.float32)],
    )  # fmt: skip
    values = {"x": np.arange(15, dtype=np.float32).reshape(5, 3), "b": np.arange(5) % 2 == 0}
    graph = import_model(proto)
    check(graph.cut(run(graph, values)), expected(proto, values))


X, MASK = value("x", (5, 4)), value("mask", (5,), TensorProto.BOOL)
FOUND = [
    node("NonZero", "mask", "places"),
    node("Transpose", "places", "rows", perm=[1, 0]),
    node("GatherND", "x rows", "found"),
]
MIXING: dict[str, tuple[list[onnx.NodeProto], int]] = {
    "sum": ([node("ReduceSum", "found", "y", keepdims=0)], TensorProto.FLOAT),
    "mean": ([node("ReduceMean", "found zero", "y", keepdims=0)], TensorProto.FLOAT),
    "largest": ([node("ReduceMax", "found zero", "y")], TensorProto.FLOAT),
    "place": ([node("ArgMin", "found", "y", axis=0)], I64),
    "log_sum_exp": ([node("ReduceLogSumExp", "found zero", "y")], TensorProto.FLOAT),
    "product": (
        [node("Transpose", "found", "turned"), node("MatMul", "turned found", "y")],
        TensorProto.FLOAT,
    ),
    "written": (
        [node("Neg", "found", "less"), node("ScatterND", "x rows less", "y")],
        TensorProto.FLOAT,
    ),
    "softmax": ([node("Softmax", "found", "y", axis=0)], TensorProto.FLOAT),
    "joined": ([node("Concat", "found x found", "y", axis=0)], TensorProto.FLOAT),
    "flat": ([node("Reshape", "found minus", "y")], TensorProto.FLOAT),
    "cut": ([node("Slice", "found minus many zero", "y")], TensorProto.FLOAT),
    "counted": (
        [node("Cast", "mask", "ones", to=I64), node("ReduceSum", "ones", "count", keepdims=0),
         node("Range", "none count one", "y")],
        I64,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXING)
def test_entries_behind_those_that_count_change_nothing(name: str) -> None:
    nodes, kind = MIXING[name]
    weights = [weight("zero", [0], np.int64), weight("minus", [-1], np.int64),
               weight("many", [9], np.int64), onnx.numpy_helper.from_array(np.array(0), "none"),
               onnx.numpy_helper.from_array(np.array(1), "one")]  # fmt: skip
    proto = model([*FOUND, *nodes], [X, MASK], [value("y", None, kind)], weights, opset=18)
    graph = import_model(proto)
    x = np.random.default_rng(3).standard_normal((5, 4)).astype(np.float32)
    for mask in ([1, 0, 1, 1, 0], [1, 1, 1, 1, 1], [0, 1, 0, 0, 0]):
        values = {"x": x, "mask": np.array(mask, np.bool_)}
        actual, wanted = graph.cut(run(graph, values))["y"], expected(proto, values)["y"]
        assert actual.dtype == wanted.dtype
        np.testing.assert_allclose(actual, wanted, rtol=1e-6, atol=1e-6)
