"""ONNX Runtime's own operators around attention (com.microsoft) in terms of ONNX's.

All end in Attention (opset 23), on [batch, heads, rows, head size].

Source: ONNX Runtime, docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_function_builder import Builder

FLOAT = onnx.TensorProto.FLOAT
INT64 = onnx.TensorProto.INT64


def attention(b: Builder) -> None:
    """Attention: input, weights, bias, mask_index, past, attention_bias, past_sequence_length."""
    x, w = b.node(0), b.node(1)
    total = b.add("MatMul", b.input(0), b.input(1))
    if b.given(2):
        total = b.add("Add", total, b.input(2))
    _self_attention(b, total, x, w.shape[1], mask=3, past=4, bias=5)


def quantised_attention(b: Builder) -> None:
    """QAttention: the same on integers; input, weights, bias, input_scale, weight_scale,
    mask_index, input_zero_point, weight_zero_point, past."""
    x, w = b.node(0), b.node(1)
    zeros = [b.input(6) if b.given(6) else "", b.input(7) if b.given(7) else ""]
    while zeros and not zeros[-1]:
        zeros.pop()
    sums = b.add("MatMulInteger", b.input(0), b.input(1), *zeros)
    scale = b.add("Mul", b.input(3), b.input(4))
    total = b.add("Mul", b.add("Cast", sums, to=FLOAT), scale)
    total = b.add("Add", total, b.input(2))
    _self_attention(b, total, x, w.shape[1], mask=5, past=8, bias=99)


def _self_attention(
    b: Builder, total: str, x: Node, columns: int, *, mask: int, past: int, bias: int
) -> None:
    """Attention of what one product gives for query, key and value."""
    heads = int(b.attribute("num_heads", 1))
    sizes = [int(s) for s in b.attribute("qkv_hidden_sizes", ())] or [columns // 3] * 3
    batch, rows = x.shape[0], x.shape[1]
    if b.attribute("do_rotary", 0):
        raise b.error("do_rotary is not supported", "export without rotary embedding")
    if sum(sizes) != columns or any(size % heads for size in sizes):
        raise b.error(f"{columns} columns do not fit {heads} heads of {sizes}")
    lengths = b.value(np.array(sizes, np.int64))
    parts = [b.name() for _ in sizes]
    b.add("Split", total, lengths, outputs=parts, axis=2)
    q, k, v = (_heads(b, part, batch, rows, heads, size) for part, size in
               zip(parts, sizes, strict=True))  # fmt: skip
    before, length = [], 0
    if b.given(past):  # [2, batch, heads, rows, head size]
        length = b.node(past).shape[3]
        numbers = [b.scalar(i, np.int64) for i in (0, 1)]
        before = [b.add("Gather", b.input(past), number, axis=0) for number in numbers]
    hidden = b.attribute("mask_filter_value", -10000.0)
    extra = _mask(b, mask, batch, length + rows, hidden)
    if b.given(bias):
        extra = b.add("Add", extra, b.input(bias)) if extra else b.input(bias)
    causal = bool(b.attribute("unidirectional", 0))
    y, present = _attend(b, q, k, v, before, extra, heads, heads, causal, length + rows, rows)
    b.result(0, _merged(b, y, batch, rows, sizes[2]))
    if b.wants(1):
        axes = b.value(np.array([0], np.int64))
        both = [b.add("Unsqueeze", each, axes) for each in present]
        b.result(1, b.add("Concat", *both, axis=0))


def multi_head_attention(b: Builder) -> None:
    """MultiHeadAttention: query, key, value, bias, key_padding_mask, attention_bias, past_key,
    past_value."""
    query = b.node(0)
    heads = int(b.attribute("num_heads", 1))
    if len(query.shape) != 3 or not b.given(1):
        raise b.error("query, key and value in one tensor are not supported",
                      "export them as tensors of their own")  # fmt: skip
    batch, rows, width = query.shape
    key = b.node(1)
    if len(key.shape) == 5:
        raise b.error("key and value in one tensor are not supported",
                      "export them as tensors of their own")  # fmt: skip
    names = [b.input(0), b.input(1), b.input(2)]
    ready = len(key.shape) == 4  # [batch, heads, rows, head size], as cross attention caches it
    values = b.node(2)
    value_width = values.shape[2] if len(values.shape) == 3 else values.shape[3] * heads
    if b.given(3):
        sizes = np.array([width, width, value_width], np.int64)
        parts = [b.name() for _ in sizes]
        b.add("Split", b.input(3), b.value(sizes), outputs=parts, axis=0)
        added = 1 if ready else 3
        names[:added] = [
            b.add("Add", name, part) for name, part in zip(names[:added], parts, strict=False)
        ]
    q = _heads(b, names[0], batch, rows, heads, width)
    k, v = names[1:]
    length = key.shape[2 if ready else 1]
    if not ready:
        k = _heads(b, k, batch, length, heads, width)
        v = _heads(b, v, batch, length, heads, value_width)
    before, past = [], 0
    if b.given(6) and b.node(6).shape[2]:
        before, past = [b.input(6), b.input(7)], b.node(6).shape[2]
    hidden = b.attribute("mask_filter_value", -10000.0)
    extra = _mask(b, 4, batch, past + length, hidden)
    if b.given(5):
        extra = b.add("Add", extra, b.input(5)) if extra else b.input(5)
    causal = bool(b.attribute("unidirectional", 0))
    y, present = _attend(b, q, k, v, before, extra, heads, heads, causal, past + length, rows)
    b.result(0, _merged(b, y, batch, rows, value_width))
    for index in (1, 2):
        if b.wants(index):
            b.result(index, present[index - 1])


def group_query_attention(b: Builder) -> None:
    """GroupQueryAttention: query, key, value, past_key, past_value, seqlens_k,
    total_sequence_length, cos_cache, sin_cache.

    What the caches hold of earlier calls comes first in the keys that are looked at, whatever
    part of them is valid: present_key is ONNX Runtime's where the past is full.
    """
    query = b.node(0)
    heads, groups = int(b.attribute("num_heads", 1)), int(b.attribute("kv_num_heads", 1))
    batch, rows, width = query.shape
    packed = not b.given(1)
    size = width // (heads + 2 * groups) if packed else width // heads
    for name in ("smooth_softmax", "qk_output", "k_quant_type", "v_quant_type"):
        if b.attribute(name, 0) not in (0, "NONE"):
            raise b.error(f"{name} is not supported", "export without it")
    if any(b.given(index) for index in range(9, 14)):
        raise b.error("position ids, attention bias and head sinks are not supported",
                      "export without them")  # fmt: skip
    if packed:
        names = [b.name() for _ in range(3)]
        lengths = np.array([heads * size, groups * size, groups * size], np.int64)
        b.add("Split", b.input(0), b.value(lengths), outputs=names, axis=2)
    else:
        names = [b.input(0), b.input(1), b.input(2)]
    counts = (heads, groups, groups)
    q, k, v = (_heads(b, name, batch, rows, count, count * size) for name, count in
               zip(names, counts, strict=True))  # fmt: skip
    past = b.node(3).shape[2] if b.given(3) else 0
    before = [b.input(3), b.input(4)] if past else []
    # How many entries are valid before this call: the last one's number is given.
    one = b.scalar(1 - rows, np.int64)
    valid = b.add("Add", b.add("Cast", b.input(5), to=INT64), one)
    valid = b.add("Max", valid, b.scalar(0, np.int64))
    valid = b.add("Reshape", valid, b.value(np.array([-1, 1], np.int64)))
    positions = b.add("Add", valid, b.value(np.arange(rows, dtype=np.int64)[None]))
    if batch > 1 or b.node(5).type.size > 1:
        whole = b.value(np.array([batch, rows], np.int64))
        positions = b.add("Expand", positions, whole)
    if b.attribute("do_rotary", 0):
        interleaved = int(b.attribute("rotary_interleaved", 0))
        q, k = (
            b.add(
                "RotaryEmbedding", part, b.input(7), b.input(8), positions, interleaved=interleaved
            )
            for part in (q, k)
        )
    # Which slots a row may look at: [batch, 1, rows, past + rows].
    slots = np.arange(past + rows, dtype=np.int64)[None]
    place = b.value(np.where(slots < past, slots, slots - past))
    new = b.value(slots >= past)
    place = b.add("Where", new, b.add("Add", place, valid), place)
    seen = b.add("Or", new, b.add("Less", place, valid))
    rows_at = b.add("Unsqueeze", positions, b.value(np.array([1, 3], np.int64)))
    axes = b.value(np.array([1, 2], np.int64))
    at = b.add("Unsqueeze", place, axes)
    allowed = b.add("And", b.add("LessOrEqual", at, rows_at), b.add("Unsqueeze", seen, axes))
    window = int(b.attribute("local_window_size", -1))
    if window > 0:
        first = b.add("Sub", rows_at, b.scalar(window, np.int64))
        allowed = b.add("And", allowed, b.add("Less", first, at))
    none = b.scalar(-1e30)
    extra = b.add("Where", allowed, b.scalar(0), none)
    softcap = b.attribute("softcap", 0.0)
    y, present = _attend(
        b, q, k, v, before, extra, heads, groups, False, past + rows, rows, softcap=softcap
    )
    b.result(0, _merged(b, y, batch, rows, heads * size))
    for index in (1, 2):
        if b.wants(index):
            b.result(index, present[index - 1])


def rotary_embedding(b: Builder) -> None:
    """RotaryEmbedding: input, position_ids, cos_cache, sin_cache."""
    x, positions = b.node(0), b.node(1)
    batch, rows = x.shape[0], x.shape[1 if len(x.shape) == 3 else 2]
    half = b.node(2).shape[1]
    if b.attribute("is_packed_batching", 0) or b.attribute("scale", 1.0) != 1.0:
        raise b.error("packed batches and a scale are not supported", "export without them")
    names = b.add("Cast", b.input(1), to=INT64)
    if positions.type.size == 1 and batch * rows > 1:  # the first row's
        flat = b.add("Reshape", names, b.value(np.array([1, 1], np.int64)))
        names = b.add("Add", flat, b.value(np.arange(rows, dtype=np.int64)[None]))
        names = b.add("Expand", names, b.value(np.array([batch, rows], np.int64)))
    elif len(positions.shape) != 2:
        names = b.add("Reshape", names, b.value(np.array([batch, rows], np.int64)))
    dim = int(b.attribute("rotary_embedding_dim", 0))
    heads = None
    if len(x.shape) == 3:
        heads = int(b.attribute("num_heads", 0)) or x.shape[2] // (2 * half)
    y = b.add("RotaryEmbedding", b.input(0), b.input(2), b.input(3), names, num_heads=heads,
              interleaved=int(b.attribute("interleaved", 0)), rotary_embedding_dim=dim)  # fmt: skip
    b.result(0, y)


def _heads(b: Builder, x: str, batch: int, rows: int, heads: int, width: int) -> str:
    """[batch, rows, width] as [batch, heads, rows, head size]."""
    shape = np.array([batch, rows, heads, width // heads], np.int64)
    return b.add("Transpose", b.add("Reshape", x, b.value(shape)), perm=[0, 2, 1, 3])


def _merged(b: Builder, y: str, batch: int, rows: int, width: int) -> str:
    """The reverse."""
    moved = b.add("Transpose", y, perm=[0, 2, 1, 3])
    return b.add("Reshape", moved, b.value(np.array([batch, rows, width], np.int64)))


def _mask(b: Builder, index: int, batch: int, keys: int, hidden: float) -> str:
    """What is added to scores for a mask of valid keys; "" without one.

    It is [batch] (numbers of valid keys), [batch, keys], or [batch, rows, keys].
    """
    if not b.given(index):
        return ""
    shape = b.node(index).shape
    valid = b.add("Cast", b.input(index), to=FLOAT)
    if len(shape) == 1:
        if shape[0] != batch:
            raise b.error("masks of first and last keys are not supported",
                          "export a mask of 0 and 1")  # fmt: skip
        counted = b.add("Reshape", valid, b.value(np.array([batch, 1], np.int64)))
        inside = b.add("Less", b.value(np.arange(keys, dtype=np.float32)[None]), counted)
        valid, shape = b.add("Cast", inside, to=FLOAT), (batch, keys)
    if len(shape) not in (2, 3, 4):
        raise b.error(f"a mask of shape {list(shape)} is not supported",
                      "export a mask of 0 and 1")  # fmt: skip
    axes = {2: [1, 2], 3: [1], 4: []}[len(shape)]
    if axes:
        valid = b.add("Unsqueeze", valid, b.value(np.array(axes, np.int64)))
    masked = b.add("Sub", b.scalar(1), valid)
    return b.add("Mul", masked, b.scalar(hidden))


def _attend(
    b: Builder,
    q: str,
    k: str,
    v: str,
    past: Sequence[str],
    extra: str,
    heads: int,
    groups: int,
    causal: bool,
    keys: int,
    rows: int,
    *,
    softcap: float = 0.0,
) -> tuple[str, list[str]]:
    """Attention with keys and values behind those of the past; and all keys and values.

    Args:
        extra: what is added to the scores; "" for nothing.
    """
    if past:
        k, v = (b.add("Concat", old, new, axis=2) for old, new in zip(past, (k, v), strict=True))
    if causal:
        hidden = np.triu(np.ones((rows, keys), np.float32), keys - rows + 1) * np.float32(-1e30)
        mask = b.value(hidden)
        extra = b.add("Add", extra, mask) if extra else mask
    scale = b.attribute("scale", 0.0)
    inputs = [q, k, v] + ([extra] if extra else [])
    return b.add("Attention", *inputs, scale=scale or None, softcap=softcap or None), [k, v]
