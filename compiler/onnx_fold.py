"""Nodes made at import, evaluated at once where their inputs are constants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mdlc.compiler.ir import Node
from mdlc.compiler.ops.constant import constant

# Constants above this size are not folded at import (a pass may still fold them).
LARGEST_FOLDED_BYTES = 64 << 20


def fold(node: Node) -> Node:
    """The node, or the constant that it is; what has no elements is always one."""
    if node.type.size == 0 and node.constant is None:
        return constant(np.empty(node.shape, node.type.dtype.numpy), node.name)
    if not node.inputs or not node.op.foldable or node.type.nbytes > LARGEST_FOLDED_BYTES:
        return node
    values = [source.constant for source in node.inputs]
    if any(value is None for value in values):
        return node
    with np.errstate(all="ignore"):
        value = node.op.reference(*(v for v in values if v is not None))
    return constant(np.asarray(value), node.name)


def folded(nodes: Sequence[Node], inputs: Sequence[Node | None]) -> list[Node]:
    """What one ONNX node became, from its inputs on."""
    known = {node for node in inputs if node is not None}
    done: dict[Node, Node] = {}

    def visit(node: Node) -> Node:
        if node in known or not node.inputs:
            return node
        if node not in done:
            done[node] = fold(node.with_inputs(visit(source) for source in node.inputs))
        return done[node]

    return [visit(node) for node in nodes]
