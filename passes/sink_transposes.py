"""Transposes move down through element-wise operators, so that they meet and cancel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.op import Elementwise
from mdlc.compiler.ops.concat import Concat
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.pad import Pad
from mdlc.compiler.ops.reduce import Reduce
from mdlc.compiler.ops.transpose import Transpose
from mdlc.compiler.rewrite import Budget, Decline, Match, Rule, pat, rewrite


def _inverse(perm: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(axis) for axis in np.argsort(perm))


def _elementwise(m: Match) -> Node | Decline:
    """op(transpose(a), transpose(b), constant) = transpose(op(a, b, constant'))."""
    root = m.root
    moving = [n for n in root.inputs if isinstance(n.op, Transpose)]
    perms = {n.op.perm for n in moving if isinstance(n.op, Transpose)}
    if len(perms) != 1:
        return Decline("no transposes, or different ones")
    perm = perms.pop()
    sources = []
    for node in root.inputs:
        if isinstance(node.op, Transpose):
            sources.append(node.inputs[0])
        elif node.constant is not None and node.type.rank <= len(perm):
            value = node.constant
            value = value.reshape((1,) * (len(perm) - value.ndim) + value.shape)
            sources.append(constant(np.ascontiguousarray(value.transpose(_inverse(perm)))))
        else:
            return Decline("an operand is neither transposed nor constant")
    if any(len(source.shape) != len(perm) for source in sources):
        return Decline("ranks differ")
    return make(Transpose(perm), make(root.op, *sources))


def _reduce(m: Match) -> Node | Decline:
    op, inner = m.root.op, m.root.inputs[0]
    assert isinstance(op, Reduce)
    assert isinstance(inner.op, Transpose)
    if not op.keepdims:
        return Decline("axes are dropped")
    axes = tuple(sorted(inner.op.perm[a] for a in op.axes))
    return make(inner.op, make(Reduce(op.kind, axes), inner.inputs[0]))


def _concat(m: Match) -> Node | Decline:
    op = m.root.op
    assert isinstance(op, Concat)
    perms = {n.op.perm if isinstance(n.op, Transpose) else None for n in m.root.inputs}
    perm = perms.pop()
    if perms or perm is None:
        return Decline("not all transposed alike")
    return make(Transpose(perm), make(Concat(perm[op.axis]), *(n.inputs[0] for n in m.root.inputs)))


def _pad(m: Match) -> Node:
    op, inner = m.root.op, m.root.inputs[0]
    assert isinstance(op, Pad)
    assert isinstance(inner.op, Transpose)
    back = _inverse(inner.op.perm)
    begins = tuple(op.begins[axis] for axis in back)
    ends = tuple(op.ends[axis] for axis in back)
    return make(inner.op, make(Pad(begins, ends, op.value, op.mode), inner.inputs[0]))


RULES = (
    Rule("sink_elementwise", pat(Elementwise), _elementwise),
    Rule("sink_concat", pat(Concat), _concat),
    Rule("sink_reduce", pat(Reduce, pat(Transpose)), _reduce),
    Rule("sink_pad", pat(Pad, pat(Transpose)), _pad),
)


def sink_transposes(graph: Graph, *, budget: Budget | None = None) -> Graph:
    """Applies RULES; the transposes that meet are merged by canonicalise."""
    return rewrite(graph, RULES, budget)
