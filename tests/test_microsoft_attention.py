"""ONNX Runtime's operators around attention, and those that its quantiser writes, against it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

import mdlc
from mdlc.compiler.interpreter import run
from mdlc.compiler.onnx_import import import_model
from mdlc.compiler.types import Array

RNG = np.random.default_rng(0)
Case = tuple[onnx.NodeProto, dict[str, Array], dict[str, Array]]


def floats(*shape: int) -> Array:
    return RNG.uniform(-1, 1, shape).astype(np.float32)


def _cos_sin(rows: int, half: int) -> dict[str, Array]:
    angles = np.arange(rows)[:, None] / 10 ** (np.arange(half)[None] / half)
    return {"cos": np.cos(angles).astype(np.float32), "sin": np.sin(angles).astype(np.float32)}


def _case(
    op: str, inputs: dict[str, Array | None], outputs: int = 1, constants: str = "", **more: Any
) -> Case:
    """A node whose inputs are given in order; None for absent ones."""
    names = [name if value is not None else "" for name, value in inputs.items()]
    given = {name: value for name, value in inputs.items() if value is not None}
    fixed = {name: given.pop(name) for name in constants.split()}
    node = helper.make_node(
        op, names, [f"y{i}" for i in range(outputs)], domain="com.microsoft", **more
    )
    return node, given, fixed


X = floats(2, 5, 12)
SELF = {"x": X, "w": floats(12, 36), "b": floats(36)}
QKV = {"q": floats(2, 5, 16), "k": floats(2, 7, 16), "v": floats(2, 7, 24)}
GQA = {"q": floats(1, 3, 64), "k": floats(1, 3, 32), "v": floats(1, 3, 32)}
PAST = {"pk": floats(1, 2, 4, 16), "pv": floats(1, 2, 4, 16)}
LENGTHS = {"n": np.array([6], np.int32), "t": np.array(7, np.int32)}
PROMPT = {"n": np.array([2], np.int32), "t": np.array(3, np.int32)}
U8 = RNG.integers(0, 255, (2, 5, 12)).astype(np.uint8)
I8 = RNG.integers(-127, 127, (12, 36)).astype(np.int8)
ONE = {"xs": np.array(0.01, np.float32), "ws": np.array(0.007, np.float32)}
IDS = RNG.integers(0, 9, (2, 5)).astype(np.int32)
TABLES = {"word": floats(9, 8), "pos": floats(6, 8), "seg": floats(2, 8)}
NORM = {"g": floats(8), "be": floats(8)}

CASES: dict[str, Case] = {
    "attention": _case("Attention", SELF, num_heads=3, constants="w b"),
    "attention_at_run_time": _case("Attention", SELF, num_heads=3),
    "attention_mask": _case(
        "Attention", {**SELF, "m": np.array([[1, 1, 1, 0, 0], [1] * 5], np.int32)}, num_heads=3
    ),
    "attention_lengths": _case(
        "Attention", {**SELF, "m": np.array([3, 5], np.int32)}, num_heads=3
    ),
    "attention_causal_past": _case(
        "Attention", {**SELF, "m": None, "p": floats(2, 2, 3, 4, 4)}, 2, num_heads=3,
        unidirectional=1, constants="w b",
    ),
    "attention_sizes": _case(
        "Attention", {"x": X, "w": floats(12, 42), "b": floats(42)}, num_heads=3,
        qkv_hidden_sizes=[12, 12, 18], scale=0.3,
    ),
    "attention_bias": _case(
        "Attention", {**SELF, "m": None, "p": None, "a": floats(2, 3, 5, 5)}, num_heads=3
    ),
    "multi_head": _case("MultiHeadAttention", QKV, num_heads=4),
    "multi_head_bias": _case(
        "MultiHeadAttention", {**QKV, "b": floats(56)}, num_heads=4, constants="b"
    ),
    "multi_head_mask": _case(
        "MultiHeadAttention",
        {**QKV, "b": None, "m": np.array([[1] * 7, [1, 1, 1, 1, 0, 0, 0]], np.int32)},
        num_heads=4,
    ),
    "multi_head_past": _case(
        "MultiHeadAttention",
        {"q": QKV["q"], "k": floats(2, 5, 16), "v": floats(2, 5, 16), "b": None, "m": None,
         "a": floats(1, 4, 5, 8), "pk": floats(2, 4, 3, 4), "pv": floats(2, 4, 3, 4)},
        3, num_heads=4,
    ),
    "group_query": _case(
        "GroupQueryAttention", {**GQA, "pk": None, "pv": None, **PROMPT}, 3, num_heads=4,
        kv_num_heads=2, constants="n t",
    ),
    "group_query_past": _case(
        "GroupQueryAttention", {**GQA, **PAST, **LENGTHS, **_cos_sin(16, 8)}, 3, num_heads=4,
        kv_num_heads=2, do_rotary=1,
    ),
    "group_query_window": _case(
        "GroupQueryAttention",
        {"q": floats(1, 3, 128), "k": None, "v": None, **PAST, **LENGTHS, **_cos_sin(16, 8)},
        3, num_heads=4, kv_num_heads=2, do_rotary=1, rotary_interleaved=1, local_window_size=3,
    ),
    "rotary": _case(
        "RotaryEmbedding",
        {"x": floats(2, 5, 16), "at": np.arange(10).reshape(2, 5), **_cos_sin(16, 4)},
    ),
    "rotary_offset": _case(
        "RotaryEmbedding",
        {"x": floats(2, 2, 5, 8), "at": np.array([3]), **_cos_sin(16, 4)}, interleaved=1,
    ),
    "integer_product": _case(
        "MatMulIntegerToFloat",
        {"x": U8, "w": I8, **ONE, "xz": np.array(113, np.uint8), "wz": np.array(0, np.int8),
         "b": floats(36)},
        constants="w ws wz b",
    ),
    "integer_attention": _case(
        "QAttention",
        {"x": U8, "w": I8, "b": floats(36), **ONE, "m": np.array([5, 3], np.int32),
         "xz": np.array(113, np.uint8), "wz": np.array(2, np.int8)},
        num_heads=3, constants="w b ws wz",
    ),
    "embedding": _case(
        "EmbedLayerNormalization",
        {"ids": IDS, "s": IDS % 2, **TABLES, **NORM, "m": (IDS > 3).astype(np.int32)}, 2,
    ),
    "embedding_positions": _case(
        "EmbedLayerNormalization",
        {"ids": IDS, "s": None, "word": TABLES["word"], "pos": TABLES["pos"], "seg": None,
         **NORM, "m": None, "at": np.array([[4, 3, 2, 1, 0], [0, 1, 2, 3, 5]], np.int32)}, 2,
        epsilon=1e-3,
    ),
    "pool_channels_last": _case(
        "NhwcMaxPool", {"x": RNG.integers(0, 255, (2, 7, 6, 5)).astype(np.uint8)},
        kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1],
    ),
    "quantise": _case(
        "QuantizeLinear", {"x": X, "s": np.array(0.01, np.float32), "z": np.array(3, np.int16)},
        constants="s z",
    ),
}  # fmt: skip


def _model(case: Case) -> onnx.ModelProto:
    node, inputs, constants = case
    graph = helper.make_graph(
        [node],
        "microsoft",
        [helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
         for k, v in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in node.output],
        [onnx.numpy_helper.from_array(v, k) for k, v in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _with_types(model: onnx.ModelProto, values: list[Array]) -> onnx.ModelProto:
    for output, value in zip(model.graph.output, values, strict=True):
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        output.CopyFrom(helper.make_tensor_value_info(output.name, kind, None))
    return model


@pytest.mark.parametrize("name", CASES)
def test_operators_against_onnxruntime(name: str) -> None:
    model = _model(CASES[name])
    inputs = CASES[name][1]
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = session.run(None, inputs)
    model = _with_types(model, expected)
    found = run(import_model(model), inputs)
    for i, value in enumerate(expected):
        np.testing.assert_allclose(found[f"y{i}"], value, 1e-4, 1e-5)
    assert mdlc.compile(model, name="Net").files()


@pytest.mark.parametrize(
    ("name", "target"),
    [("group_query_past", "x86-avx2"), ("attention_causal_past", "generic"),
     ("integer_attention", "x86-avx2")],
)  # fmt: skip
def test_operators_emitted(name: str, target: str) -> None:
    model, inputs = _model(CASES[name]), CASES[name][1]
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, inputs)
    emitted = mdlc.compile(_with_types(model, expected), target, name="Net").build()(inputs)
    for i, value in enumerate(expected):
        np.testing.assert_allclose(emitted[f"y{i}"], value, 1e-4, 1e-4)
