"""Channel shuffles: recognised in the exporters' reshapes, then folded into weights.

A shuffle in front of a convolution is another order of its filters' channels; behind one, another
order of its filters. A part of a shuffled concat is a shuffle of the concatenated parts.
"""

from __future__ import annotations

import numpy as np

from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.ops.channel_shuffle import ChannelShuffle
from mdlc.compiler.ops.concat import Concat
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.gather import Gather
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.slice import Slice
from mdlc.compiler.ops.transpose import Transpose
from mdlc.compiler.rewrite import Budget, Const, Decline, Match, Rule, Var, pat, rewrite


def _recognise(m: Match) -> Node | Decline:
    """Reshape [N, g, C/g, ...], axes 1 and 2 exchanged, and back."""
    x, split, swap = m["x"], m["split"], m["swap"].op
    assert isinstance(swap, Transpose)
    if x.type.rank != 4 or m.root.shape != x.shape or len(split.shape) < 4:
        return Decline("not from and to the same images")
    n, groups, rest, *_ = split.shape
    if (n, groups * rest) != x.shape[:2]:
        return Decline("the channels are not what is split")
    if swap.perm != (0, 2, 1, *range(3, len(split.shape))):
        return Decline("other axes are exchanged")
    return make(ChannelShuffle(groups), x)


def _recognise_part(m: Match) -> Node | Decline:
    """Reshape [C/g, g, pixels], exchanged, and one of the g parts taken: every g-th channel."""
    x, split, swap, parts = m["x"], m["split"], m["swap"].op, m["parts"]
    op, index = m.root.op, m.value("index")
    assert isinstance(swap, Transpose)
    assert isinstance(op, Gather)
    if x.type.rank != 4 or x.shape[0] != 1 or index.ndim != 0 or op.axis != 0:
        return Decline("not one image, or not one part")
    channels, pixels = x.shape[1], x.shape[2] * x.shape[3]
    if len(split.shape) != 3 or swap.perm != (1, 0, 2) or split.shape[2] != pixels:
        return Decline("not channels, groups and pixels")
    rest, groups, _ = split.shape
    if rest * groups != channels or parts.shape != (groups, 1, rest, *x.shape[2:]):
        return Decline("the parts are not groups of channels")
    start = int(index) % groups
    return make(Slice((0, start, 0, 0), (1, rest, *x.shape[2:]), (1, groups, 1, 1)), x)


def _after_conv(m: Match) -> Node:
    """The filters of the convolution before in another order."""
    conv, op = m["conv"], m.root.op
    assert isinstance(op, ChannelShuffle)
    order = op.order(conv.shape[1])
    inputs = [conv.inputs[0]]
    for source in conv.inputs[1:]:
        value = source.constant
        assert value is not None
        inputs.append(constant(value[order], source.name))
    return make(conv.op, *inputs)


def _before_conv(m: Match) -> Node:
    """The channels of the filters behind in another order."""
    op, shuffle = m.root.op, m["shuffle"]
    assert isinstance(shuffle.op, ChannelShuffle)
    weights = m.value("w")
    moved = np.empty_like(weights)
    moved[:, shuffle.op.order(shuffle.shape[1])] = weights
    return make(op, m["x"], constant(moved, m["w"].name), *m.root.inputs[2:])


def _part_of_concat(m: Match) -> Node | Decline:
    """A part of shuffled pieces, where it takes as much of each piece."""
    op, shuffle, concat = m.root.op, m["shuffle"].op, m["concat"]
    assert isinstance(op, Slice)
    assert isinstance(shuffle, ChannelShuffle)
    assert isinstance(concat.op, Concat)
    found = op.single_range(concat.shape)
    if found is None or found[0] != 1 or concat.op.axis != 1:
        return Decline("not a range of channels")
    start, length, groups = found[1], op.lengths[1], shuffle.groups
    if start % groups or length % groups or len(concat.inputs) != groups:
        return Decline("the range cuts through a group")
    if len({piece.shape[1] for piece in concat.inputs}) > 1:
        return Decline("the pieces differ in size")
    pieces = [
        make(Slice.along(piece.shape, 1, start // groups, length // groups), piece)
        for piece in concat.inputs
    ]
    return make(shuffle, make(Concat(1), *pieces))


def _constant_weights(node: Node) -> bool:
    op = node.op
    assert isinstance(op, Conv2D)
    mixes = op.groups == 1 and not op.residual
    return mixes and all(source.constant is not None for source in node.inputs[1:])


_X = Var("x")
_SPLIT = pat(Transpose, pat(Reshape, _X, bind="split", shared=True), bind="swap", shared=True)
RULES = (
    Rule("shuffle", pat(Reshape, _SPLIT), _recognise),
    Rule(
        "shuffle_part",
        pat(Gather, pat(Reshape, _SPLIT, bind="parts", shared=True), Const("index")),
        _recognise_part,
    ),
    Rule(
        "part_of_concat",
        pat(
            Slice,
            pat(
                ChannelShuffle, pat(Concat, bind="concat", shared=True), bind="shuffle", shared=True
            ),
        ),
        _part_of_concat,
    ),
    Rule(
        "shuffle_after_conv",
        pat(ChannelShuffle, pat(Conv2D, bind="conv", where=_constant_weights)),
        _after_conv,
    ),
    Rule(
        "shuffle_before_conv",
        pat(
            Conv2D,
            pat(ChannelShuffle, _X, bind="shuffle", shared=True),
            Const("w"),
            ...,
            where=lambda n: n.op.groups == 1,  # type: ignore[attr-defined]
        ),
        _before_conv,
    ),
)


def fold_channel_shuffle(graph: Graph, *, budget: Budget | None = None) -> Graph:
    """Applies RULES."""
    return rewrite(graph, RULES, budget)
