"""Common subexpressions: equal operators on equal inputs are computed once."""

from __future__ import annotations

from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.op import Op
from mdlc.compiler.ops.input import Input
from mdlc.compiler.types import TensorType


def merge_common_subexpressions(graph: Graph) -> Graph:
    """Merges nodes that are equal; the first one's name stays."""
    seen: dict[tuple[Op, tuple[Node, ...], TensorType], Node] = {}

    def visit(old: Node, fresh: Node) -> Node:
        if isinstance(fresh.op, Input):
            return fresh
        return seen.setdefault((fresh.op, fresh.inputs, fresh.type), fresh)

    return graph.rebuild(visit)
