"""Constant folding: what depends on constants alone is computed now."""

from __future__ import annotations

import numpy as np

from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.ops.constant import constant

# Larger results stay computed at run time: the weights file would grow by more than it saves.
LARGEST_BYTES = 64 << 20


def fold_constants(graph: Graph, *, largest_bytes: int = LARGEST_BYTES) -> Graph:
    """Replaces every node whose inputs are constants by its value."""

    def visit(old: Node, fresh: Node) -> Node:
        values = [source.constant for source in fresh.inputs]
        known = [value for value in values if value is not None]
        if not values or len(known) < len(values) or not fresh.op.foldable:
            return fresh
        if fresh.type.nbytes > largest_bytes:
            return fresh
        with np.errstate(all="ignore"):
            return constant(np.asarray(fresh.op.reference(*known)), fresh.name)

    return graph.rebuild(visit)
