"""What the importer takes: exporters' habits, shape arithmetic, inlining, external data."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mdlc.compiler.interpreter import run
from mdlc.compiler.ir import Graph
from mdlc.compiler.onnx_import import import_model
from mdlc.compiler.types import DType
from tests.onnx_models import Array, assert_as_onnxruntime, model, node, value, weight


def kinds(graph: Graph) -> list[str]:
    return [type(n.op).__name__ for n in graph.order() if n.inputs]


def conv_model(opset: int, **more: int) -> onnx.ModelProto:
    generator = np.random.default_rng(0)
    return model(
        [node("Conv", "x w b", "c", pads=[1, 1, 1, 1], name="first"), node("Relu", "c", "y")],
        [value("x", (1, 3, 8, 8))],
        [value("y", (1, 5, 8, 8))],
        [
            weight("w", generator.standard_normal((5, 3, 3, 3))),
            weight("b", generator.standard_normal(5)),
        ],
        opset=opset,
        **more,
    )


@pytest.mark.parametrize("opset", range(7, 24))
def test_opsets(opset: int) -> None:
    proto = conv_model(opset)
    graph = import_model(proto)
    assert kinds(graph) == ["Conv2D", "Relu"]
    assert_as_onnxruntime(proto, graph)


def test_newest_opset() -> None:
    proto = conv_model(onnx.defs.onnx_opset_version())
    assert kinds(import_model(proto)) == ["Conv2D", "Relu"]


def test_sources_agree(tmp_path: Path) -> None:
    proto = conv_model(17)
    path = tmp_path / "net.onnx"
    onnx.save(proto, path)
    graphs = [import_model(s) for s in (path, str(path), path.read_bytes(), proto)]
    assert [g.name for g in graphs] == ["net", "net", "little", "little"]
    descriptions = {tuple((str(n.op), n.name, str(n.type)) for n in g.order()) for g in graphs}
    assert len(descriptions) == 1


def test_names_are_kept() -> None:
    graph = import_model(conv_model(17))
    assert [n.name for n in graph.order() if n.inputs] == ["c", "y"]
    assert graph.output_names == ("y",)


def test_weights_that_are_also_inputs() -> None:
    """Before IR version 4 every initialiser was listed as an input."""
    proto = conv_model(8, ir_version=3)
    proto.graph.input.extend([value("w", (5, 3, 3, 3)), value("b", (5,))])
    graph = import_model(proto)
    assert [i.name for i in graph.inputs] == ["x"]
    assert_as_onnxruntime(proto, graph)


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int32", "int64", "uint8"])
@pytest.mark.parametrize("raw", [True, False])
def test_weight_types(dtype: str, raw: bool) -> None:
    array = np.arange(4).astype(dtype)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    tensor = (
        numpy_helper.from_array(array, "w") if raw else helper.make_tensor("w", kind, (4,), array)
    )
    proto = model([node("Add", "x w", "y")], [value("x", (1, 4), kind)],
                  [value("y", (1, 4), kind)], [tensor])  # fmt: skip
    graph = import_model(proto)
    assert graph.outputs[0].type.dtype is DType.from_numpy(dtype)
    assert_as_onnxruntime(proto, graph)


def test_weights_in_constant_nodes() -> None:
    proto = model(
        [
            node("Constant", "", "w", value=weight("", [1.0, 2.0, 3.0, 4.0])),
            node("Constant", "", "s", value_float=0.5),
            node("Add", "x w", "a"),
            node("Mul", "a s", "y"),
        ]
    )
    graph = import_model(proto)
    assert kinds(graph) == ["Add", "Mul"]
    assert_as_onnxruntime(proto, graph)


def save_with_external_data(proto: onnx.ModelProto, path: Path) -> None:
    onnx.save(proto, path, save_as_external_data=True, all_tensors_to_one_file=True,
              location="net.data", size_threshold=0, convert_attribute=True)  # fmt: skip


def test_external_data(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    save_with_external_data(conv_model(17), path)
    assert (tmp_path / "net.data").stat().st_size >= 5 * 27 * 4
    graph = import_model(path)
    assert_as_onnxruntime(str(path), graph)


def test_external_data_in_constant_nodes(tmp_path: Path) -> None:
    proto = model([node("Constant", "", "w", value=weight("w", [1.0, 2.0, 3.0, 4.0])),
                   node("Add", "x w", "y")])  # fmt: skip
    path = tmp_path / "net.onnx"
    save_with_external_data(proto, path)
    assert (tmp_path / "net.data").exists()
    x = np.zeros((1, 4), np.float32)
    np.testing.assert_array_equal(run(import_model(path), {"x": x})["y"], [[1, 2, 3, 4]])


@pytest.mark.parametrize("batch", [None, "N", -1, 0])
def test_open_batch_is_one(batch: int | str | None) -> None:
    graph = import_model(model([node("Relu", "x", "y")], [value("x", (batch, 4))],
                               [value("y", (batch, 4))]))  # fmt: skip
    assert graph.inputs[0].shape == (1, 4)


def test_given_shapes() -> None:
    proto = model([node("Relu", "x", "y")], [value("x", ("N", 3, "H", "W"))],
                  [value("y", ("N", 3, "H", "W"))])  # fmt: skip
    assert import_model(proto, shapes={"x": [2, 3, 6, 7]}).outputs[0].shape == (2, 3, 6, 7)


def test_named_dimensions_are_shared() -> None:
    proto = model([node("Add", "x z", "y")], [value("x", ("N", "L")), value("z", ("N", "L"))],
                  [value("y", ("N", "L"))])  # fmt: skip
    graph = import_model(proto, shapes={"z": (3, 5)})
    assert [i.shape for i in graph.inputs] == [(3, 5), (3, 5)]


def test_shape_of_no_rank() -> None:
    proto = model([node("Relu", "x", "y")], [value("x", None)], [value("y", None)])
    assert import_model(proto, shapes={"x": (2, 3)}).outputs[0].shape == (2, 3)


def flatten_by_arithmetic() -> list[onnx.NodeProto]:
    """What PyTorch writes for x.view(x.size(0), -1)."""
    return [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n", axis=0),
        node("Unsqueeze", "n axes", "n1"),
        node("Concat", "n1 minus", "t0", axis=0),
        node("Cast", "t0", "t1", to=TensorProto.FLOAT),
        node("Cast", "t1", "t2", to=TensorProto.INT64),
        node("Slice", "t2 axes two", "target"),
        node("Reshape", "x target", "y"),
    ]


def test_shape_arithmetic_is_folded() -> None:
    proto = model(
        flatten_by_arithmetic(),
        [value("x", ("N", 3, 2, 2))],
        [value("y", ("N", 12))],
        [weight("zero", 0, np.int64), weight("axes", [0], np.int64),
         weight("minus", [-1], np.int64), weight("two", [2], np.int64)],
    )  # fmt: skip
    graph = import_model(proto)
    assert kinds(graph) == ["Reshape"]
    assert_as_onnxruntime(proto, graph)


def test_ranges_that_pytorch_counts() -> None:
    """Its opset 9 spells arange(n) with NonZero."""
    proto = model(
        [
            node("Shape", "x", "s"),
            node("ConstantOfShape", "s", "ones", value=weight("", [1])),
            node("NonZero", "ones", "indices"),
            node("Transpose", "indices", "t", perm=[1, 0]),
            node("Cast", "t", "range", to=TensorProto.FLOAT),
            node("Squeeze", "range", "flat", axes=[1]),
            node("Add", "x flat", "y"),
        ],
        [value("x", ("N",))],
        [value("y", ("N",))],
        opset=9,
    )
    graph = import_model(proto, shapes={"x": (6,)})
    assert kinds(graph) == ["Add"]
    assert_as_onnxruntime(proto, graph)


def test_squeezed_batch_may_change_the_declared_rank() -> None:
    proto = model([node("Squeeze", "x", "y")], [value("x", ("N", 4))], [value("y", ("N", 4))])
    assert import_model(proto).outputs[0].shape == (4,)


def test_large_constants_are_not_folded() -> None:
    proto = model(
        [node("ConstantOfShape", "s", "c"), node("Add", "x c", "y")],
        [value("x", (1, 1))],
        [value("y", (5000, 5000))],
        [weight("s", [5000, 5000], np.int64)],
    )
    assert kinds(import_model(proto)) == ["Expand", "Add"]


def test_absent_inputs_and_names() -> None:
    proto = model([node("Clip", "x _ top", "y")], weights=[weight("top", 0.5)])
    assert not proto.graph.node[0].name
    assert_as_onnxruntime(proto, import_model(proto))


def test_nodes_in_any_order() -> None:
    proto = model([node("Exp", "b", "y"), node("Neg", "a", "b"), node("Relu", "x", "a")])
    assert kinds(import_model(proto)) == ["Relu", "Neg", "Exp"]


def test_outputs_that_are_inputs_and_constants() -> None:
    proto = model(
        [node("Relu", "x", "y"), node("Identity", "y", "again"), node("Identity", "w", "copy")],
        [value("x")],
        [value("x"), value("w", (2,)), value("again"), value("y"), value("copy", (2,))],
        [weight("w", [1.0, 2.0])],
    )
    graph = import_model(proto)
    assert graph.output_names == ("x", "w", "again", "y", "copy")
    assert graph.outputs[0] is graph.inputs[0]
    values = run(graph, {"x": np.float32([[-1, 0, 1, 2]])})
    np.testing.assert_array_equal(values["w"], [1, 2])
    np.testing.assert_array_equal(values["copy"], [1, 2])
    np.testing.assert_array_equal(values["x"], [[-1, 0, 1, 2]])
    np.testing.assert_array_equal(values["again"], [[0, 0, 1, 2]])


def test_inputs_that_no_one_reads() -> None:
    graph = import_model(model([node("Relu", "x", "y")], [value("x"), value("idle", (2, 2))]))
    assert [i.name for i in graph.inputs] == ["x", "idle"]


def test_several_outputs_of_a_node() -> None:
    proto = model([node("Split", "x", "a b", axis=1), node("Sub", "b a", "y")],
                  [value("x", (2, 6))], [value("y", (2, 3))], opset=11)  # fmt: skip
    assert_as_onnxruntime(proto, import_model(proto))


def branches(then: list[onnx.NodeProto], other: list[onnx.NodeProto]) -> dict[str, object]:
    return {
        key: helper.make_graph(nodes, key, [], [value(nodes[-1].output[0], None)])
        for key, nodes in (("then_branch", then), ("else_branch", other))
    }


@pytest.mark.parametrize("batch", [1, 2])
def test_if_with_a_constant_condition(batch: int) -> None:
    """PyTorch writes one for squeeze() of an open dimension."""
    body = branches([node("Squeeze", "x axes", "t")], [node("Neg", "x", "a"),
                                                       node("Identity", "a", "e")])  # fmt: skip
    proto = model(
        [
            node("Shape", "x", "s"),
            node("Gather", "s zero", "n", axis=0),
            node("Equal", "n one", "is_one"),
            node("If", "is_one", "r", **body),
            node("Relu", "r", "y"),
        ],
        [value("x", ("N", 4))],
        [value("y", None)],
        [weight("zero", 0, np.int64), weight("one", 1, np.int64), weight("axes", [0], np.int64)],
    )
    graph = import_model(proto, shapes={"x": (batch, 4)})
    assert kinds(graph) == (["Reshape", "Relu"] if batch == 1 else ["Neg", "Relu"])
    assert_as_onnxruntime(proto, graph)


def test_if_within_if_reads_outer_tensors_in_any_order() -> None:
    inner = branches([node("Add", "late x", "deep")], [node("Neg", "x", "deep2")])
    outer = branches([node("If", "yes", "mid", **inner)], [node("Abs", "x", "mid2")])
    proto = model([node("If", "yes", "y", **outer), node("Exp", "x", "late")],
                  weights=[weight("yes", True, np.bool_)])  # fmt: skip
    assert kinds(import_model(proto)) == ["Exp", "Add"]


def test_local_functions_are_inlined() -> None:
    swish = helper.make_function(
        "mine", "Swish", ["a"], ["b"], [node("Sigmoid", "a", "s"), node("Mul", "a s", "b")],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    twice = helper.make_function(
        "mine", "Twice", ["a"], ["b"],
        [node("Swish", "a", "m", domain="mine"), node("Swish", "m", "b", domain="mine")],
        [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)],
    )  # fmt: skip
    proto = model([node("Twice", "x", "y", domain="mine")], functions=[swish, twice],
                  opsets=[helper.make_opsetid("mine", 1)])  # fmt: skip
    graph = import_model(proto)
    assert sorted(kinds(graph)) == ["Mul", "Mul", "Sigmoid", "Sigmoid"]
    assert_as_onnxruntime(proto, graph)


def test_half_precision_stays() -> None:
    half = TensorProto.FLOAT16
    proto = model([node("Mul", "x w", "a"), node("Softmax", "a", "y", axis=1)],
                  [value("x", (1, 4), half)], [value("y", (1, 4), half)],
                  [weight("w", [1, 2, 3, 4], np.float16)])  # fmt: skip
    graph = import_model(proto)
    assert all(n.type.dtype is DType.F16 for n in graph.order())
    assert_as_onnxruntime(proto, graph)


def test_deep_graphs_do_not_recurse() -> None:
    depth = 5000
    names = ["x", *(f"t{i}" for i in range(depth - 1)), "y"]
    proto = model([node("Relu", a, b) for a, b in pairwise(names)])
    graph = import_model(proto)
    assert len(graph.order()) == depth + 1
    x: Array = np.float32([[-1, 0, 1, 2]])
    np.testing.assert_array_equal(run(graph, {"x": x})["y"], np.maximum(x, 0))


def test_the_same_twice() -> None:
    first, second = (
        [(str(n.op), n.name, str(n.type), [i.name for i in n.inputs]) for n in g.order()]
        for g in (import_model(conv_model(17)), import_model(conv_model(17)))
    )
    assert first == second
