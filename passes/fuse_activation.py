"""Activations into the epilogue of the convolution or dense layer before them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.op import Elementwise
from mdlc.compiler.ops.cast import Cast
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.prelu import PRelu
from mdlc.compiler.rewrite import Budget, Const, Decline, Match, Rule, Var, pat, rewrite
from mdlc.passes.fold_scale_shift import WEIGHTED, per_channel


def _free(node: Node) -> bool:
    op = node.op
    assert isinstance(op, WEIGHTED)
    return op.activation is None


def _unary(node: Node) -> bool:
    op = node.op
    assert isinstance(op, Elementwise)
    keeps_type = node.type.dtype is node.inputs[0].type.dtype and not isinstance(op, Cast)
    return op.arity == 1 and keeps_type and node.type.dtype.is_float


def _activation(m: Match) -> Node:
    conv, op = m["conv"], m.root.op
    return make(replace(conv.op, activation=op), *conv.inputs)  # type: ignore[call-arg]


def _prelu(m: Match) -> Node | Decline:
    conv = m["conv"]
    axis = 1 if conv.type.rank == 4 else conv.type.rank - 1
    slope = per_channel(m.value("slope"), m.root.shape, axis)
    if slope is None or m.root.shape != conv.shape:
        return Decline("the slope is not one number per channel")
    inputs = [*conv.inputs[:3], constant(slope.astype(np.float32)), *conv.inputs[3:]]
    return make(replace(conv.op, activation=PRelu()), *inputs)  # type: ignore[call-arg]


def _residual(m: Match) -> Node | Decline:
    """Adds the other operand in the epilogue of the convolution that comes later."""
    if m.order[m["other"]] > m.order[m["conv"]] and _takes(m["other"]):
        return Decline("the other convolution is computed later")
    conv, other = m["conv"], m["other"]
    if other.shape != m.root.shape or conv.shape != m.root.shape:
        return Decline("the sum is broadcast")
    if other.constant is not None:
        return Decline("a constant is no residual")
    op = conv.op
    assert isinstance(op, Conv2D)
    return make(replace(op, residual=True), *conv.inputs, other)


def _takes(node: Node) -> bool:
    return isinstance(node.op, Conv2D) and node.op.activation is None and not node.op.residual


_CONV = pat(WEIGHTED, bind="conv", where=_free)
_BARE = pat(
    Conv2D,
    bind="conv",
    where=lambda n: _free(n) and not n.op.residual,  # type: ignore[attr-defined]
)

ACTIVATIONS = (
    Rule("activation", pat(Elementwise, _CONV, where=_unary), _activation),
    Rule("prelu", pat(PRelu, _CONV, Const("slope")), _prelu),
)


def fuse_activation(graph: Graph, *, budget: Budget | None = None) -> Graph:
    """Fuses every unary element-wise operator, and PRelu with a constant slope per channel."""
    return rewrite(graph, ACTIVATIONS, budget)


def fuse_residual(graph: Graph, *, budget: Budget | None = None) -> Graph:
    """Fuses the sum of a convolution and another tensor of its shape.

    A tensor that depends on the convolution cannot meet it in a sum without a second user, so
    no cycle arises. Of two convolutions the one computed later takes the sum.
    """
    from mdlc.compiler.ops.add import Add

    rule = Rule("residual", pat(Add, _BARE, Var("other")), _residual)
    return rewrite(graph, (rule,), budget)
