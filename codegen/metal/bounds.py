"""How large elements can be, where the graph says so: whether half precision holds them."""

from __future__ import annotations

import math

import numpy as np

from mdlc.codegen.metal.parts import HALF_MAX
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.conv_transpose2d import ConvTranspose2D
from mdlc.compiler.ops.dense import Dense
from mdlc.compiler.values import UNKNOWN, of_constant


def largest_magnitude(node: Node) -> float:
    """No element of the node is larger than this; infinity where nothing is known."""
    largest = 0.0
    pending, seen = [node], {node}
    while pending:
        at = pending.pop()
        bound = _own_bound(at)
        if bound is None:
            for source in at.inputs:
                if source not in seen:
                    seen.add(source)
                    pending.append(source)
        else:
            largest = max(largest, bound)
    return largest


def may_overflow(node: Node) -> bool:
    """Whether the graph's own bounds let an element of a convolution exceed what half holds.

    Only bounds that operators and types give count: of inputs without one nothing is known, and
    sums of sums would soon have bounds that no value comes near.
    """
    own = _own_bound(node)
    if not isinstance(node.op, Conv2D | Dense) or (own is not None and math.isfinite(own)):
        return False
    weights, bias = node.inputs[1].constant, node.inputs[2].constant
    largest = largest_magnitude(node.inputs[0])
    if weights is None or bias is None or not math.isfinite(largest):
        return False
    sums = np.abs(weights.astype(np.float64)).reshape(len(weights), -1).sum(1) * largest
    return bool((sums + np.abs(bias.reshape(-1))).max(initial=0.0) > HALF_MAX)


def _own_bound(node: Node) -> float | None:
    """A node's bound, or None where it is that of its inputs."""
    op = node.op
    if node.constant is not None:
        return float(np.abs(node.constant).max(initial=0)) if node.type.size else 0.0
    if op.keeps_magnitude([source.type for source in node.inputs]):
        return None
    if isinstance(op, Conv2D | Dense | ConvTranspose2D):
        # Their activation's alone: no value comes near the bounds of sums of sums.
        if op.activation is None:
            return math.inf
        unknown = [UNKNOWN] * op.activation.arity
        return float(op.activation.bounded(*unknown).most.max())
    known = [UNKNOWN if s.constant is None else of_constant(s.constant) for s in node.inputs]
    return float(op.value_bounds(node, known).most.max())
