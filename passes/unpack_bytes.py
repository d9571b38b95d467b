"""Bytes straight into the convolution that reads them: what makes floats of them goes into it.

A picture comes as bytes, which are cast, normalised and laid out before the first layer. Factors
are in that layer's weights already (passes/fold_scale_shift.py); what is left is a cast, a sum per
channel that padding keeps out of the bias, and an order of channels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.ops.add import Add
from mdlc.compiler.ops.cast import Cast
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.gather import Gather
from mdlc.compiler.ops.slice import Slice
from mdlc.compiler.ops.transpose import Transpose
from mdlc.compiler.rewrite import Budget, Const, Decline, Match, Rule, Var, pat, rewrite
from mdlc.compiler.types import DType
from mdlc.passes.fold_scale_shift import per_channel

# Channels at most: summands stand in the emitted text, once for every byte of a few vectors.
MAX_CHANNELS = 16


def _widens(node: Node) -> bool:
    return node.inputs[0].type.dtype is DType.U8 and node.type.dtype is DType.F32


def _takes_floats(node: Node) -> bool:
    return node.inputs[0].type.dtype is DType.F32


def _takes_bytes(node: Node) -> bool:
    return node.inputs[0].type.dtype is DType.U8


def _fused(m: Match, shift: tuple[float, ...]) -> Node | Decline:
    conv, x = m.root, m["x"]
    op = conv.op
    assert isinstance(op, Conv2D)
    if x.shape != conv.inputs[0].shape:
        return Decline("the bytes are broadcast")
    if op.groups > 1 or x.shape[1] > MAX_CHANNELS:
        return Decline("no first layer")
    return make(replace(op, shift=shift), x, *conv.inputs[1:])


def _cast(m: Match) -> Node | Decline:
    return _fused(m, ())


def _cast_and_sum(m: Match) -> Node | Decline:
    shift = per_channel(m.value("c"), m.root.inputs[0].shape, 1)
    if shift is None:
        return Decline("the summand is not one number per channel")
    return _fused(m, tuple(float(value) for value in shift))


def _transposed_cast(m: Match) -> Node:
    """Bytes are transposed before they are cast: that is cheaper, or nothing at all."""
    cast = m["cast"]
    return make(cast.op, make(m.root.op, m["x"]))


def _reordered(m: Match) -> Node | Decline:
    """Channels in another order, or some neighbouring ones of them: the weights change places."""
    conv, turn, pick, x = m.root, m["turn"], m["pick"], m["x"]
    op, index = conv.op, m.value("index")
    assert isinstance(op, Conv2D)
    assert isinstance(turn.op, Transpose)
    assert isinstance(pick.op, Gather)
    if index.ndim != 1 or pick.type.rank != 4 or turn.op.perm[1] != pick.op.axis:
        return Decline("not the channels are picked")
    given = x.shape[pick.op.axis]
    index = index % given
    first, count = int(index.min()), len(index)
    if op.groups > 1 or sorted(index) != list(range(first, first + count)):
        return Decline("the channels are no range in some order")
    weights = m.value("w")
    moved, shift = np.empty_like(weights), list(op.shift)
    for place, channel in enumerate(index - first):
        moved[:, channel] = weights[:, place]
        if shift:
            shift[channel] = op.shift[place]
    source = make(turn.op, x)
    if count < given:
        source = make(Slice.along(source.shape, 1, first, count), source)
    return make(
        replace(op, shift=tuple(shift)), source, constant(moved, m["w"].name), *conv.inputs[2:]
    )


_X = Var("x")
_WEIGHTS = (Const("w"), Const("b"))
_FLOATS = pat(Cast, _X, where=_widens)

RULES = (
    Rule(
        "transposed_cast",
        pat(Transpose, pat(Cast, _X, bind="cast", where=_widens)),
        _transposed_cast,
    ),
    Rule("cast", pat(Conv2D, _FLOATS, *_WEIGHTS, ..., where=_takes_floats), _cast),
    Rule(
        "cast_and_sum",
        pat(Conv2D, pat(Add, _FLOATS, Const("c")), *_WEIGHTS, ..., where=_takes_floats),
        _cast_and_sum,
    ),
    Rule(
        "reordered",
        pat(
            Conv2D,
            pat(Transpose, pat(Gather, _X, Const("index"), bind="pick"), bind="turn"),
            *_WEIGHTS,
            ...,
            where=_takes_bytes,
        ),
        _reordered,
    ),
)


def unpack_bytes(graph: Graph, *, budget: Budget | None = None) -> Graph:
    """Applies RULES."""
    return rewrite(graph, RULES, budget)
