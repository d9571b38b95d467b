"""The sum of 8-bit tensors into the convolution that computes one of them."""

from __future__ import annotations

from dataclasses import replace

from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.ops.quantized_add import QuantizedAdd
from mdlc.compiler.ops.quantized_conv2d import QuantizedConv2D
from mdlc.compiler.rewrite import Budget, Decline, Match, Rule, Var, pat, rewrite
from mdlc.compiler.types import DType


def _takes(node: Node) -> bool:
    op = node.op
    if not isinstance(op, QuantizedConv2D) or op.addition is not None or op.dtype is DType.I32:
        return False
    # Depthwise convolutions are bound by memory, not by their epilogue.
    return op.groups == 1 or node.inputs[1].shape[1] > 1


def _sum(m: Match) -> Node | Decline:
    conv, other, added = m["conv"], m["other"], m.root.op
    assert isinstance(conv.op, QuantizedConv2D)
    assert isinstance(added, QuantizedAdd)
    if m.root.inputs[0] is not conv:
        added = added.turned()
    if m.order[other] > m.order[conv] and _takes(other):
        return Decline("the other convolution is computed later")
    if other.constant is not None:
        return Decline("a constant is no tensor to add")
    if added.a_zero != conv.op.y_zero:
        return Decline("the sum takes the convolution's integers for others")
    return make(replace(conv.op, addition=added), *conv.inputs, other)


def fuse_quantized_sum(graph: Graph, *, budget: Budget | None = None) -> Graph:
    """Sums in the epilogue of convolutions, with the same integers.

    As in fuse_residual: of two convolutions the one computed later takes the sum.
    """
    conv = pat(QuantizedConv2D, bind="conv", where=_takes)
    rules = tuple(
        Rule("quantized_sum", pat(QuantizedAdd, *inputs), _sum)
        for inputs in ((conv, Var("other")), (Var("other"), conv))
    )
    return rewrite(graph, rules, budget)
