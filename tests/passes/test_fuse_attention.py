"""Attention in one layer: as exporters write it, against ONNX Runtime; and what is left alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdlc.codegen.target import targets
from mdlc.compiler.interpreter import run
from mdlc.compiler.ir import Graph
from mdlc.compiler.onnx_export import export_onnx
from mdlc.compiler.onnx_import import import_model
from mdlc.compiler.ops.attention import Attention
from mdlc.pipeline import optimise


def model(text: str, **constants: Any) -> onnx.ModelProto:
    """A model in ONNX's textual form, with arrays as initializers."""
    proto = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 20]>\n{text}')
    for name, value in constants.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    return proto


def fused(proto: onnx.ModelProto, count: int = 1) -> Graph:
    """The optimised graph, which has so many attentions and computes what ONNX Runtime does."""
    graph = optimise(import_model(proto))
    found = Counter(type(node.op).__name__ for node in graph)
    assert found["Attention"] == count, found
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    rng = np.random.default_rng(0)
    feeds = {x.name: rng.normal(0, 1, x.shape).astype(np.float32) for x in session.get_inputs()}
    expected = session.run(None, feeds)
    exported = onnxruntime.InferenceSession(export_onnx(graph).SerializeToString())
    written = exported.run(None, feeds)
    names = [y.name for y in session.get_outputs()]
    for name, value, again in zip(names, expected, written, strict=True):
        np.testing.assert_allclose(run(graph, feeds)[name], value, rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(again, value, rtol=2e-4, atol=2e-5)
    return graph


def operators(graph: Graph) -> Counter[str]:
    return Counter(type(node.op).__name__ for node in graph)


INT = lambda *shape: np.array(shape, np.int64)  # noqa: E731
ONE = np.array([0], np.int64)
HEADS = """
vit (float[2, 5, 36] x) => (float[2, 5, 12] y) {
  cut = Reshape(x, cut_shape)
  turned = Transpose<perm = [2, 0, 3, 1, 4]>(cut)
  q, k, v = Split<axis = 0, num_outputs = 3>(turned)
  q1 = Squeeze(q, first)
  k1 = Squeeze(k, first)
  v1 = Squeeze(v, first)
  k2 = Transpose<perm = [0, 1, 3, 2]>(k1)
  %s
  heads = Transpose<perm = [0, 2, 1, 3]>(mixed)
  y = Reshape(heads, joined)
}
"""
SHAPES = {"cut_shape": INT(2, 5, 3, 3, 4), "joined": INT(2, 5, 12), "first": ONE}
MASK = np.random.default_rng(1).normal(0, 1, (3, 5, 5)).astype(np.float32)
SCORES = {
    "scaled queries": ("q2 = Mul(q1, s) k3 = Mul(k2, s) s0 = MatMul(q2, k3) a = Softmax(s0)",
                       {"s": np.float32(0.7)}),
    "scaled scores": ("s0 = MatMul(q1, k2) s1 = Div(s0, s) a = Softmax(s1)", {"s": np.float32(2)}),
    "negative": ("s0 = MatMul(q1, k2) s1 = Mul(s0, s) a = Softmax(s1)", {"s": np.float32(-0.5)}),
    "mask": ("s0 = MatMul(q1, k2) s1 = Mul(s, s0) s2 = Add(m, s1) a = Softmax(s2)",
             {"s": np.float32(0.5), "m": MASK}),
    "sum scaled": ("s0 = MatMul(q1, k2) s1 = Add(s0, m) s2 = Mul(s1, s) a = Softmax(s2)",
                   {"s": np.float32(0.5), "m": MASK}),
    "two masks": ("s0 = MatMul(q1, k2) s2 = Add(s0, m) s3 = Add(s2, n) a = Softmax(s3)",
                  {"m": MASK, "n": MASK[:1, :1]}),
    "windows": ("s0 = MatMul(q1, k2) s2 = Add(s0, m) s3 = Reshape(s2, w) s4 = Add(s3, n) "
                "s5 = Reshape(s4, b) a = Softmax(s5)",
                {"m": MASK, "w": INT(1, 2, 3, 5, 5), "b": INT(2, 3, 5, 5),
                 "n": np.stack([MASK[:1], MASK[1:2]])}),
}  # fmt: skip


@pytest.mark.parametrize("name", SCORES)
def test_heads_cut_from_one_linear_layer(name: str) -> None:
    text, constants = SCORES[name]
    body = f"{text} mixed = MatMul(a, v1)"
    graph = fused(model(HEADS % body, **SHAPES, **constants))
    # Nothing moves: the operands are views of the input, and heads lie side by side.
    assert set(operators(graph)) <= {"Input", "Constant", "Attention", "Reshape"}


def test_heads_merged_with_the_batch() -> None:
    text = """
    merged (float[2, 5, 12] q, float[2, 7, 12] k, float[2, 7, 18] v) => (float[2, 5, 18] y) {
      q0 = Reshape(q, qs) q1 = Transpose<perm = [0, 2, 1, 3]>(q0) q2 = Reshape(q1, qm)
      k0 = Reshape(k, ks) k1 = Transpose<perm = [0, 2, 3, 1]>(k0) k2 = Reshape(k1, km)
      v0 = Reshape(v, vs) v1 = Transpose<perm = [0, 2, 1, 3]>(v0) v2 = Reshape(v1, vm)
      s = MatMul(q2, k2) a = Softmax(s) m = MatMul(a, v2)
      m1 = Reshape(m, mb) m2 = Transpose<perm = [0, 2, 1, 3]>(m1) y = Reshape(m2, ys)
    }"""
    shapes = {"qs": INT(2, 5, 3, 4), "qm": INT(6, 5, 4), "ks": INT(2, 7, 3, 4), "km": INT(6, 4, 7),
              "vs": INT(2, 7, 3, 6), "vm": INT(6, 7, 6), "mb": INT(2, 3, 5, 6),
              "ys": INT(2, 5, 18)}  # fmt: skip
    assert "Transpose" not in operators(fused(model(text, **shapes)))


def test_heads_of_channels() -> None:
    """As detectors have it: queries, keys and values are channels of a picture, and so is y."""
    text = """
    channels (float[1, 8, 4, 5] x) => (float[1, 12, 4, 5] y) {
      c = Conv(x, w)
      cut = Reshape(c, cut_shape)
      q, k, v = Split<axis = 2>(cut, lengths)
      q1 = Transpose<perm = [0, 1, 3, 2]>(q)
      s0 = MatMul(q1, k) s1 = Mul(s0, s) a = Softmax(s1)
      t = Transpose<perm = [0, 1, 3, 2]>(a)
      m = MatMul(v, t) y = Reshape(m, joined)
    }"""
    weights = np.random.default_rng(2).normal(0, 0.5, (28, 8, 1, 1)).astype(np.float32)
    graph = fused(model(text, w=weights, cut_shape=INT(1, 2, 14, 20), lengths=INT(4, 4, 6),
                        s=np.float32(0.5), joined=INT(1, 12, 4, 5)))  # fmt: skip
    # The convolution's memory is read as it lies, and the picture is what is written.
    assert set(operators(graph)) <= {"Input", "Constant", "Conv2D", "Attention", "Reshape",
                                     "Transpose", "ConvertLayout"}  # fmt: skip
    assert operators(graph)["ConvertLayout"] <= 2  # of input and output


def test_transposed_values_of_no_picture() -> None:
    text = """
    turned (float[2, 5, 4] q, float[2, 7, 4] k, float[2, 7, 6] v) => (float[2, 6, 5] y) {
      vt = Transpose<perm = [0, 2, 1]>(v)
      kt = Transpose<perm = [0, 2, 1]>(k)
      s = MatMul(q, kt) a = Softmax(s)
      t = Transpose<perm = [0, 2, 1]>(a)
      y = MatMul(vt, t)
    }"""
    fused(model(text))


def test_heads_apart() -> None:
    text = """
    apart (float[5, 4] q, float[7, 4] k, float[7, 6] v) => (float[5, 6] y) {
      kt = Transpose<perm = [1, 0]>(k)
      s0 = MatMul(q, kt) s1 = Reshape(s0, one) a0 = Softmax(s1) a1 = Reshape(a0, two)
      y = MatMul(a1, v)
    }"""
    fused(model(text, one=INT(1, 1, 5, 7), two=INT(5, 7)))


@pytest.mark.parametrize(
    ("text", "constants"),
    [
        ("s = MatMul(q1, k2) a = Softmax<axis = 2>(s) mixed = MatMul(a, v1)", {}),
        ("s = MatMul(q1, k2) a = Softmax(s) b = Mul(a, a) mixed = MatMul(b, v1)", {}),
        ("s = MatMul(q1, k2) a = Softmax(s) r = MatMul(a, v1) mixed = MatMul(a, r)", {}),
        ("s = MatMul(q1, k2) a = Softmax(s) m = MatMul(a, v1) r = MatMul(s, v1) mixed = Add(m, r)",
         {}),
    ],
    ids=["over queries", "between", "shares read twice", "scores read twice"],
)  # fmt: skip
def test_left_alone(text: str, constants: dict[str, Any]) -> None:
    fused(model(HEADS % text, **SHAPES, **constants), 0)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_cut_of_heads(data: st.DataObject) -> None:
    """Axes in any order, parts in any place: the operator's views are what the tensors were."""
    draw = data.draw
    sizes = {"b": draw(st.integers(1, 3)), "h": draw(st.integers(1, 3)),
             "n": draw(st.integers(1, 5)), "p": 3, "d": draw(st.integers(1, 4))}  # fmt: skip
    order = draw(st.permutations(list(sizes)))
    perm = [order.index(axis) for axis in "pbhnd"]
    length = int(np.prod(list(sizes.values())))
    inner = draw(st.permutations(range(2)))
    parts = draw(st.permutations(["q1", "kt", "v1"]))
    b, h, n, d = (sizes[axis] for axis in "bhnd")
    left, right = ((b, h)[axis] for axis in inner)
    text = f"""
    any (float[{length}] x) => (float[{left}, {n}, {right}, {d}] y) {{
      cut = Reshape(x, cut_shape)
      turned = Transpose<perm = {perm}>(cut)
      {parts[0]}_p, {parts[1]}_p, {parts[2]}_p = Split<axis = 0, num_outputs = 3>(turned)
      q1 = Squeeze(q1_p, first) kt = Squeeze(kt_p, first) v1 = Squeeze(v1_p, first)
      k2 = Transpose<perm = [0, 1, 3, 2]>(kt)
      s = MatMul(q1, k2) a = Softmax(s) m = MatMul(a, v1)
      y = Transpose<perm = [{inner[0]}, 2, {inner[1]}, 3]>(m)
    }}"""
    fused(model(text, cut_shape=INT(*(sizes[axis] for axis in order)), first=ONE))


def test_every_class_has_a_layer_of_attention() -> None:
    assert [name for name, target in targets().items() if not target.attends] == [
        name for name in targets() if name.startswith("metal")
    ]


def test_scores_stay_in_the_first_level_cache() -> None:
    """No more scratch memory than packed keys and values and a band take."""
    from mdlc.codegen.isa.registry import find_isa
    from mdlc.codegen.kernel import candidates

    text, constants = SCORES["scaled queries"]
    long = {"cut_shape": INT(1, 2048, 3, 3, 16), "joined": INT(1, 2048, 48), "first": ONE}
    proto = model((HEADS % f"{text} mixed = MatMul(a, v1)").replace("[2, 5, ", "[1, 2048, ")
                  .replace("36]", "144]").replace("12]", "48]"), **long, **constants)  # fmt: skip
    graph = optimise(import_model(proto))
    (node,) = [each for each in graph if isinstance(each.op, Attention)]
    for name in ("arm-neon", "x86-avx2", "x86-avx512", "generic"):
        isa = find_isa(name)
        best = candidates(node, isa)[0]
        scratch = best.kernel.scratch(node, best.schedule, isa.of([node.type]))
        assert scratch < 4 * 2048 * 40 + 3 * 14 * 4 * 2100
