"""Operators that stand for others, and control flow whose course is known, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.interpreter import run
from mdlc.compiler.ir import Graph
from mdlc.compiler.onnx_import import import_model
from tests.onnx_models import Array, assert_as_onnxruntime, model, node, value, weight

MICROSOFT = (helper.make_opsetid("com.microsoft", 1),)
RNG = np.random.default_rng(5)


def microsoft(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> onnx.NodeProto:
    return node(op, inputs, outputs, domain="com.microsoft", **attributes)


def floats(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def packed(codes: Array) -> Array:
    """Two codes of 4 bits a byte, the first one low."""
    return (codes[..., ::2] | codes[..., 1::2] << 4).astype(np.uint8)


FUSED = [
    (microsoft("FusedConv", "x w b", activation=kind, pads=[1, 1, 1, 1], **more),
     (1, 3, 5, 5), {"w": floats(4, 3, 3, 3), "b": floats(4)})
    for kind, more in (
        ("Relu", {}),
        ("LeakyRelu", {"activation_params": [0.2]}),
        ("Clip", {"activation_params": [-0.5, 0.5]}),
        ("HardSigmoid", {"activation_params": [0.3, 0.4]}),
    )
]  # fmt: skip
CASES = {
    "fused_conv_sum": (
        microsoft("FusedConv", "x w _ z", activation="Relu"),
        (1, 2, 3, 3),
        {"w": floats(2, 2, 1, 1), "z": floats(1, 2, 3, 3)},
    ),
    **{f"fused_conv_{i}": case for i, case in enumerate(FUSED)},
    "fused_matmul": (
        microsoft("FusedMatMul", "x w", alpha=0.5, transB=1),
        (2, 3, 4),
        {"w": floats(2, 5, 4)},
    ),
    "fused_matmul_a": (
        microsoft("FusedMatMul", "x w", transA=1),
        (2, 4, 3),
        {"w": floats(2, 4, 5)},
    ),
    "gelu": (microsoft("Gelu", "x"), (2, 3, 4), {}),
    "bias_gelu": (microsoft("BiasGelu", "x w"), (2, 3, 4), {"w": floats(4)}),
    "fast_gelu": (microsoft("FastGelu", "x w"), (2, 3, 4), {"w": floats(4)}),
    "fast_gelu_plain": (microsoft("FastGelu", "x"), (2, 3, 4), {}),
    "quick_gelu": (microsoft("QuickGelu", "x", alpha=1.5), (2, 3, 4), {}),
    "skip": (
        microsoft("SkipLayerNormalization", "x w g b c", "y _ _ s", epsilon=1e-3),
        (2, 3, 4),
        {"w": floats(2, 3, 4), "g": floats(4), "b": floats(4), "c": floats(4)},
    ),
    "skip_plain": (
        microsoft("SkipLayerNormalization", "x w g"),
        (2, 3, 4),
        {"w": floats(2, 3, 4), "g": floats(4)},
    ),
    "skip_simplified": (
        microsoft("SkipSimplifiedLayerNormalization", "x w g", "y _ _ s"),
        (2, 3, 4),
        {"w": floats(2, 3, 4), "g": floats(4)},
    ),
    "simplified": (node("SimplifiedLayerNormalization", "x g", "y"), (2, 3, 4), {"g": floats(4)}),
    "matmul_4_bits": (
        microsoft("MatMulNBits", "x w s", K=32, N=3, bits=4, block_size=16),
        (2, 32),
        {"w": packed(RNG.integers(0, 16, (3, 2, 16), np.uint8)), "s": floats(6)},
    ),
    "matmul_4_bits_zeros": (
        microsoft("MatMulNBits", "x w s z", K=32, N=3, bits=4, block_size=16),
        (2, 32),
        {
            "w": packed(RNG.integers(0, 16, (3, 2, 16), np.uint8)),
            "s": floats(6),
            "z": packed(RNG.integers(0, 16, (3, 2), np.uint8)).reshape(-1),
        },
    ),
    "dynamic_quantize_matmul": (
        microsoft("DynamicQuantizeMatMul", "x w s z b"),
        (2, 8),
        {
            "w": RNG.integers(-127, 127, (8, 3), np.int8),
            "s": np.float32([0.01]),
            "z": np.int8([3]),
            "b": floats(3),
        },
    ),
}


def graph_of(
    proto: onnx.NodeProto, shape: tuple[int, ...], weights: dict[str, Array], **more: Any
) -> onnx.ModelProto:
    outputs = [value(name, None) for name in proto.output if name]
    return model([proto], [value("x", shape)], outputs,
                 [weight(n, w, w.dtype) for n, w in weights.items()], **more)  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_operators_of_onnx_runtime(name: str) -> None:
    proto = graph_of(*CASES[name], opsets=MICROSOFT)
    assert_as_onnxruntime(proto, import_model(proto))


def test_activations_that_are_not_there_are_refused() -> None:
    proto = graph_of(
        microsoft("FusedConv", "x w", activation="Sine"), (1, 2, 3, 3), {"w": floats(2, 2, 1, 1)},
        opsets=MICROSOFT,
    )  # fmt: skip
    with pytest.raises(MdlcError, match="'Sine' is not supported"):
        import_model(proto)


def test_outputs_that_only_the_function_has() -> None:
    proto = graph_of(node("LayerNormalization", "x g", "y mean deviation"), (2, 3, 4),
                     {"g": floats(4)})  # fmt: skip
    assert_as_onnxruntime(proto, import_model(proto))


def body(nodes: list[onnx.NodeProto], inputs: list[Any], outputs: list[Any]) -> onnx.GraphProto:
    return helper.make_graph(nodes, "body", inputs, outputs)


def loop_model(count: int, *, stops_after: int | None = None) -> onnx.ModelProto:
    """y grows by x, and z collects it; the condition may end it sooner."""
    keeps = (
        [node("Identity", "on", "on_out")]
        if stops_after is None
        else [node("Constant", "", "last", value_int=stops_after - 1),
              node("Less", "i last", "on_out")]
    )  # fmt: skip
    flag = TensorProto.BOOL
    inner = body(
        [node("Add", "before x", "after"), node("Mul", "after half", "seen"), *keeps],
        [value("i", (), TensorProto.INT64), value("on", (), flag), value("before", (1, 4))],
        [value("on_out", (), flag), value("after", (1, 4)), value("seen", (1, 4))],
    )
    return model(
        [node("Loop", "count _ x", "y z", body=inner)],
        outputs=[value("y"), value("z", None)],
        weights=[weight("count", count, np.int64), weight("half", 0.5)],
    )


@pytest.mark.parametrize("count", [1, 4])
def test_loops_are_unrolled(count: int) -> None:
    proto = loop_model(count)
    assert_as_onnxruntime(proto, import_model(proto))


def test_a_loop_ends_where_its_condition_does() -> None:
    proto = loop_model(9, stops_after=3)
    graph = import_model(proto)
    assert_as_onnxruntime(proto, graph)
    assert graph.outputs[1].shape == (3, 1, 4)


def test_endless_loops_are_refused() -> None:
    with pytest.raises(MdlcError, match="its 900000000 iterations would become"):
        import_model(loop_model(900_000_000))


@pytest.mark.parametrize("direction", [0, 1])
@pytest.mark.parametrize("axis", [0, 1])
def test_scans_are_unrolled(axis: int, direction: int) -> None:
    inner = body(
        [node("Add", "before part", "after"), node("Identity", "after", "seen")],
        [value("before", (3,)), value("part", (3,))],
        [value("after", (3,)), value("seen", (3,))],
    )
    scan = node("Scan", "start x", "last all", body=inner, num_scan_inputs=1,
                scan_input_axes=[axis], scan_input_directions=[direction],
                scan_output_axes=[1], scan_output_directions=[1 - direction])  # fmt: skip
    proto = model([scan], [value("x", (5, 3) if axis == 0 else (3, 5))],
                  [value("last", None), value("all", None)],
                  [weight("start", [1.0, 2.0, 3.0])])  # fmt: skip
    assert_as_onnxruntime(proto, import_model(proto))


def choice() -> onnx.ModelProto:
    branches = {
        "then_branch": body([node("Abs", "x", "a")], [], [value("a")]),
        "else_branch": body([node("Neg", "x", "a")], [], [value("a")]),
    }
    return model([node("If", "flag", "y", **branches)],
                 [value("x"), value("flag", (), TensorProto.BOOL)])  # fmt: skip


@pytest.mark.parametrize("flag", [False, True])
def test_a_choice_at_run_time_computes_both(flag: bool) -> None:
    graph = import_model(choice())
    x = floats(1, 4)
    y = run(graph, {"x": x, "flag": np.array(flag)})["y"]
    np.testing.assert_array_equal(y, np.abs(x) if flag else -x)


def test_sequences_are_lists_of_tensors() -> None:
    nodes = [
        node("SplitToSequence", "x size", "parts", axis=1),
        node("SequenceAt", "parts first", "a"),
        node("SequenceAt", "parts last", "b"),
        node("SequenceConstruct", "b a", "two"),
        node("SequenceInsert", "two x", "three"),
        node("SequenceErase", "three first", "rest"),
        node("SequenceLength", "rest", "n"),
        node("ConcatFromSequence", "rest", "y", axis=1),
    ]
    proto = model(nodes, [value("x", (1, 6))],
                  [value("y", None), value("n", None, TensorProto.INT64)],
                  [weight("size", 2, np.int64), weight("first", 0, np.int64),
                   weight("last", -1, np.int64)])  # fmt: skip
    graph = import_model(proto)
    assert_as_onnxruntime(proto, graph)
    assert len(graph.order()) < 12


def test_sequences_as_outputs_are_refused() -> None:
    proto = model([node("SequenceConstruct", "x x", "y")], outputs=[value("y", None)])
    with pytest.raises(MdlcError, match="is a sequence, not a tensor"):
        import_model(proto)


def test_inputs_without_elements_are_known() -> None:
    proto = model([node("Concat", "x none", "y", axis=1)], [value("x"), value("none", (1, 0))])
    graph = import_model(proto, shapes={"none": (1, 0)})
    assert [i.name for i in graph.inputs] == ["x"]
    x = floats(1, 4)
    np.testing.assert_array_equal(run(graph, {"x": x})["y"], x)


def old_model(opset: int) -> onnx.ModelProto:
    """Broadcasting by an attribute, as before operator set 7."""
    return model([node("Add", "x b", "s", broadcast=1), node("Relu", "s", "y")],
                 weights=[weight("b", [1, -2, 3, -4])], opset=opset, ir_version=3)  # fmt: skip


def test_old_operator_sets_are_converted() -> None:
    graph: Graph = import_model(old_model(6))
    x = floats(1, 4)
    expected = np.maximum(x + np.float32([1, -2, 3, -4]), 0)
    np.testing.assert_array_equal(run(graph, {"x": x})["y"], expected)


INTS = TensorProto.INT64


@pytest.mark.parametrize("keeps", [0, 1])
@pytest.mark.parametrize("axes", [[1], [-1], [0], [2]])
def test_axes_at_run_time_choose_among_what_the_declared_shape_allows(
    axes: list[int], keeps: int
) -> None:
    shape = [3, 3, 3]
    shape[axes[0]] = 1
    if not keeps:
        shape = [3, 3]
    proto = model([node("ReduceSum", "x axes", "y", keepdims=keeps)],
                  [value("x", (3, 3, 3)), value("axes", (1,), INTS)],
                  [value("y", shape)])  # fmt: skip
    x = floats(3, 3, 3)
    y = run(import_model(proto), {"x": x, "axes": np.array(axes)})["y"]
    np.testing.assert_allclose(y, x.sum(axes[0], keepdims=bool(keeps)), rtol=1e-5)


@pytest.mark.parametrize("axes", [[0, 2], [-1, 0], [2, 1]])
def test_several_axes_come_in_any_order(axes: list[int]) -> None:
    proto = model([node("ReduceMax", "x axes", "y", keepdims=0)],
                  [value("x", (3, 3, 3)), value("axes", (2,), INTS)],
                  [value("y", (3,))], opset=18)  # fmt: skip
    x = floats(3, 3, 3)
    y = run(import_model(proto), {"x": x, "axes": np.array(axes)})["y"]
    np.testing.assert_array_equal(y, x.max(tuple(axes)))


def test_a_target_shape_at_run_time_is_the_declared_one() -> None:
    proto = model([node("Reshape", "x shape", "y")],
                  [value("x", (2, 6)), value("shape", (2,), INTS)],
                  [value("y", (3, 4))])  # fmt: skip
    graph = import_model(proto)
    assert [i.name for i in graph.inputs] == ["x", "shape"]
    x = floats(2, 6)
    y = run(graph, {"x": x, "shape": np.array([3, 4])})["y"]
    np.testing.assert_array_equal(y, x.reshape(3, 4))


def test_a_target_shape_that_nothing_settles_is_refused() -> None:
    proto = model([node("Reshape", "x shape", "y")],
                  [value("x", (2, 6)), value("shape", (2,), INTS)],
                  [value("y", ("a", "b"))])  # fmt: skip
    with pytest.raises(MdlcError, match=r"'shape'.* must be a constant"):
        import_model(proto)


def test_outputs_that_nothing_reads_are_no_obstacle() -> None:
    proto = model([node("MaxPool", "x", "y indices", kernel_shape=[2, 2])],
                  [value("x", (1, 1, 4, 4))], [value("y", None)])  # fmt: skip
    assert_as_onnxruntime(proto, import_model(proto))


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(3, 4), (4, 5)]),
        ("bij,bjk->bki", [(2, 3, 4), (2, 4, 5)]),
        ("...ij,...kj->...ik", [(1, 3, 4), (5, 6, 4)]),
        ("bhid,bhjd->bhij", [(1, 2, 3, 4), (1, 2, 5, 4)]),
        ("i,j->ij", [(3,), (4,)]),
        ("ii->i", [(4, 4)]),
        ("bii->b", [(2, 3, 3)]),
        ("ij->ji", [(2, 3)]),
        ("ij,ij->", [(2, 3), (2, 3)]),
        ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]),
        ("ijk,jl", [(2, 3, 4), (3, 5)]),
    ],
)
def test_einsum(equation: str, shapes: list[tuple[int, ...]]) -> None:
    names = "abc"[: len(shapes)]
    proto = model([node("Einsum", " ".join(names), "y", equation=equation)],
                  [value(n, s) for n, s in zip(names, shapes, strict=True)],
                  [value("y", None)])  # fmt: skip
    assert_as_onnxruntime(proto, import_model(proto))


def test_fixed_inputs_decide_which_branch_is_taken() -> None:
    nodes = [node("Constant", "", "rate", value_int=16000), node("Equal", "sr rate", "flag")]
    branches = {
        "then_branch": body([node("Abs", "x", "a")], [], [value("a")]),
        "else_branch": body([node("Concat", "x x", "a", axis=1)], [], [value("a", (1, 8))]),
    }
    proto = model([*nodes, node("If", "flag", "y", **branches)],
                  [value("x"), value("sr", (), INTS)], [value("y", None)])  # fmt: skip
    x = floats(1, 4)
    graph = import_model(proto, fixed={"sr": 16000})
    assert [i.name for i in graph.inputs] == ["x"]
    np.testing.assert_array_equal(run(graph, {"x": x})["y"], np.abs(x))
    assert import_model(proto, fixed={"sr": 8000}).outputs[0].shape == (1, 8)
    with pytest.raises(MdlcError, match="its branches give different types"):
        import_model(proto)
    with pytest.raises(MdlcError, match="--fix gives what i64 does not hold"):
        import_model(proto, fixed={"sr": 0.5})
    with pytest.raises(MdlcError, match="no input 'rate'"):
        import_model(proto, fixed={"rate": 1})
