"""Products and sums per channel, BatchNormalization above all, go into the weights around."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.op import Op
from mdlc.compiler.ops.add import Add
from mdlc.compiler.ops.batch_normalization import BatchNormalization
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.conv_transpose2d import ConvTranspose2D
from mdlc.compiler.ops.dense import Dense
from mdlc.compiler.ops.mul import Mul
from mdlc.compiler.ops.transpose import Transpose
from mdlc.compiler.rewrite import Budget, Const, Decline, Match, Rule, Var, pat, rewrite
from mdlc.compiler.types import Array

WEIGHTED = (Conv2D, ConvTranspose2D, Dense)


def _plain(node: Node) -> bool:
    """Whether nothing stands between the sums of products and the output."""
    op = node.op
    assert isinstance(op, WEIGHTED)
    return op.activation is None and not getattr(op, "residual", False)


def per_channel(value: Array, shape: Sequence[int], axis: int) -> Array | None:
    """A broadcast constant as one number per channel of `axis`; None if it varies otherwise."""
    if value.ndim > len(shape):
        return None
    full = (1,) * (len(shape) - value.ndim) + value.shape
    if any(d != 1 for i, d in enumerate(full) if i != axis):
        return None
    return np.broadcast_to(value.reshape(-1), (shape[axis],)).astype(np.float64)


def _channel_axis(op: Op, rank: int) -> int:
    return rank - 1 if isinstance(op, Dense) else 1


def scale_outputs(node: Node, factor: Array, shift: Array) -> Node:
    """factor * node + shift per output channel, as a node of the same operator."""
    x, w, b = node.inputs
    weights, bias = w.constant, b.constant
    assert weights is not None
    assert bias is not None
    op = node.op
    if isinstance(op, ConvTranspose2D):
        groups = weights.reshape(op.groups, -1, *weights.shape[1:])  # g, C/g, M/g, kH, kW
        scaled = groups * factor.reshape(op.groups, 1, -1, 1, 1)
        scaled = scaled.reshape(weights.shape)
    else:
        scaled = weights * factor.reshape(-1, *(1,) * (weights.ndim - 1))
    moved = bias * factor + shift
    return make(
        op,
        x,
        constant(scaled.astype(np.float32), w.name),
        constant(moved.astype(np.float32), b.name),
    )


def _batch_norm_after(m: Match) -> Node | Decline:
    op = m.root.op
    assert isinstance(op, BatchNormalization)
    if isinstance(m["conv"].op, Dense) and m.root.type.rank != 2:
        return Decline("the channels are not the last axis")
    factor, shift = op.scale_shift(*(m.value(name) for name in ("s", "b", "mean", "var")))
    return scale_outputs(m["conv"], factor, shift)


def _mul_after(m: Match) -> Node | Decline:
    conv = m["conv"]
    factor = per_channel(m.value("c"), m.root.shape, _channel_axis(conv.op, conv.type.rank))
    if factor is None or m.root.shape != conv.shape:
        return Decline("the factor is not one number per channel")
    return scale_outputs(conv, factor, np.zeros_like(factor))


def _add_after(m: Match) -> Node | Decline:
    conv = m["conv"]
    shift = per_channel(m.value("c"), m.root.shape, _channel_axis(conv.op, conv.type.rank))
    if shift is None or m.root.shape != conv.shape:
        return Decline("the summand is not one number per channel")
    return scale_outputs(conv, np.ones_like(shift), shift)


def scale_inputs(node: Node, x: Node, factor: Array, shift: Array) -> Node | Decline:
    """The layer of factor * x + shift (per input channel) as one of x."""
    op = node.op
    w, b = node.inputs[1], node.inputs[2]
    weights, bias = w.constant, b.constant
    assert weights is not None
    assert bias is not None
    if isinstance(op, Conv2D):
        if np.any(shift != 0) and any(op.pads):
            return Decline("padding would be shifted too")
        per_group = weights.shape[1]
        grouped = weights.reshape(op.groups, -1, *weights.shape[1:])  # g, M/g, C/g, kH, kW
        along = factor.reshape(op.groups, 1, per_group, 1, 1)
        scaled = (grouped * along).reshape(weights.shape)
        extra = (grouped.astype(np.float64) * shift.reshape(op.groups, 1, per_group, 1, 1)).sum(
            (2, 3, 4)
        )
    elif isinstance(op, Dense):
        scaled = weights * factor
        extra = weights.astype(np.float64) @ shift
    else:
        assert isinstance(op, ConvTranspose2D)
        if np.any(shift != 0):
            return Decline("pixels at the border see fewer of the filter's weights")
        scaled = weights * factor.reshape(-1, 1, 1, 1)  # C, M/g, kH, kW
        extra = np.zeros(bias.shape)
    return make(
        op,
        x,
        constant(scaled.astype(np.float32), w.name),
        constant((bias + extra.reshape(-1)).astype(np.float32), b.name),
        *node.inputs[3:],
    )


def _before(m: Match, factor: Array | None, shift: Array | None) -> Node | Decline:
    if factor is None or shift is None or m["x"].shape != m.root.inputs[0].shape:
        return Decline("not one number per channel")
    return scale_inputs(m.root, m["x"], factor, shift)


def _mul_before(m: Match) -> Node | Decline:
    shape = m.root.inputs[0].shape
    factor = per_channel(m.value("c"), shape, _channel_axis(m.root.op, len(shape)))
    return _before(m, factor, None if factor is None else np.zeros_like(factor))


def _add_before(m: Match) -> Node | Decline:
    shape = m.root.inputs[0].shape
    shift = per_channel(m.value("c"), shape, _channel_axis(m.root.op, len(shape)))
    return _before(m, None if shift is None else np.ones_like(shift), shift)


def _batch_norm_before(m: Match) -> Node | Decline:
    op = m["norm"].op
    assert isinstance(op, BatchNormalization)
    if isinstance(m.root.op, Dense) and m["x"].type.rank != 2:
        return Decline("the channels are not the last axis")
    return _before(m, *op.scale_shift(*(m.value(name) for name in ("s", "b", "mean", "var"))))


def _mul_add_before(m: Match) -> Node | Decline:
    """Padding keeps x * c + a out of the weights, but (x + a / c) * c leaves only a sum outside."""
    conv, x, c, a = m.root, m["x"], m.value("c"), m.value("a")
    shape = conv.inputs[0].shape
    factor, shift = per_channel(c, shape, 1), per_channel(a, shape, 1)
    if factor is None or shift is None or x.shape != shape:
        return Decline("not one number per channel")
    with np.errstate(all="ignore"):
        before = (shift / factor).astype(a.dtype)
    if not np.all(np.isfinite(before)):
        return Decline("the summand before the product is not finite")
    # No name: this is none of the model's tensors.
    summed = make(Add(), x, constant(before.reshape(-1, 1, 1)))
    return scale_inputs(conv, summed, factor, np.zeros_like(factor))


def _behind_transpose(m: Match) -> Node | Decline:
    """Moves arithmetic per channel towards a convolution: t(x * c) = t(x) * c'."""
    turn, inner, x = m.root, m["inner"], m["x"]
    assert isinstance(turn.op, Transpose)
    value = per_channel(m.value("c"), x.shape, turn.op.perm[1]) if x.type.rank == 4 else None
    if value is None or inner.shape != x.shape:
        return Decline("not one number per channel")
    own = constant(value.reshape(-1, 1, 1).astype(m.value("c").dtype))
    return make(inner.op, make(turn.op, x), own)


def _add_then_mul(m: Match) -> Node | Decline:
    """(x + a) * c = x * c + a * c, so that the product can go on towards the weights before."""
    a, c = m.value("a"), m.value("c")
    if a.dtype.kind != "f" or m["x"].shape != m.root.shape:
        return Decline("integers, or the result is broadcast")
    product = (a.astype(np.float64) * c).astype(a.dtype)
    return make(Add(), make(Mul(), m["x"], m["c"]), constant(product))


def _two(op: type[Op]) -> object:
    def handler(m: Match) -> Node | Decline:
        a, c = m.value("a"), m.value("c")
        if a.dtype.kind != "f" or m["x"].shape != m.root.shape:
            return Decline("integers, or the result is broadcast")
        wide = a.astype(np.float64)
        both = wide + c if op is Add else wide * c
        return make(op(), m["x"], constant(np.asarray(both).astype(a.dtype)))

    return handler


_X, _C = Var("x"), Const("c")
_WEIGHTS = (Const("_w"), Const("_b"))
_STATISTICS = (Const("s"), Const("b"), Const("mean"), Const("var"))
_CONV = pat(WEIGHTED, Var("_"), *_WEIGHTS, bind="conv", where=_plain)

RULES = (
    Rule("batch_norm_after", pat(BatchNormalization, _CONV, *_STATISTICS), _batch_norm_after),
    Rule("mul_after", pat(Mul, _CONV, _C), _mul_after),
    Rule("add_after", pat(Add, _CONV, _C), _add_after),
    Rule("add_add", pat(Add, pat(Add, _X, Const("a")), _C), _two(Add)),  # type: ignore[arg-type]
    Rule("mul_mul", pat(Mul, pat(Mul, _X, Const("a")), _C), _two(Mul)),  # type: ignore[arg-type]
    Rule("add_then_mul", pat(Mul, pat(Add, _X, Const("a")), _C), _add_then_mul),
    Rule(
        "behind_transpose",
        pat(Transpose, pat((Mul, Add), _X, _C, bind="inner")),
        _behind_transpose,
    ),
    Rule("mul_before", pat(WEIGHTED, pat(Mul, _X, _C), *_WEIGHTS, ...), _mul_before),
    Rule("add_before", pat((Conv2D, Dense), pat(Add, _X, _C), *_WEIGHTS, ...), _add_before),
    Rule(
        "mul_add_before",
        pat(Conv2D, pat(Add, pat(Mul, _X, _C), Const("a")), *_WEIGHTS, ...),
        _mul_add_before,
    ),
    Rule(
        "batch_norm_before",
        pat(
            WEIGHTED,
            pat(BatchNormalization, _X, *_STATISTICS, bind="norm"),
            *_WEIGHTS,
            ...,
        ),
        _batch_norm_before,
    ),
)


def fold_scale_shift(graph: Graph, *, budget: Budget | None = None) -> Graph:
    """Applies RULES: into the weights before where there are any, else into those behind."""
    return rewrite(graph, RULES, budget)
