"""How large elements can be, where the graph says so: whether half precision holds them."""

from __future__ import annotations

import math

import numpy as np

from mdlc.codegen.metal.parts import HALF_MAX
from mdlc.compiler.ir import Node
from mdlc.compiler.op import Op
from mdlc.compiler.ops.average_pool2d import AveragePool2D
from mdlc.compiler.ops.cast import Cast
from mdlc.compiler.ops.clip import Clip
from mdlc.compiler.ops.concat import Concat
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.convert_layout import ConvertLayout
from mdlc.compiler.ops.dense import Dense
from mdlc.compiler.ops.hard_sigmoid import HardSigmoid
from mdlc.compiler.ops.input import Input
from mdlc.compiler.ops.max_pool2d import MaxPool2D
from mdlc.compiler.ops.pad import Pad
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.sigmoid import Sigmoid
from mdlc.compiler.ops.slice import Slice
from mdlc.compiler.ops.softmax import Softmax
from mdlc.compiler.ops.tanh import Tanh
from mdlc.compiler.ops.transpose import Transpose
from mdlc.compiler.types import DType

_MOVES = (AveragePool2D, Cast, Concat, ConvertLayout, MaxPool2D, Reshape, Slice, Transpose)


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
    if isinstance(op, Input):
        return {DType.U8: 255.0, DType.I8: 128.0, DType.BOOL: 1.0}.get(node.type.dtype, math.inf)
    if isinstance(op, _MOVES) or (isinstance(op, Pad) and abs(op.value) <= 1):
        return None
    activation = getattr(op, "activation", None)
    return _bound_of(activation if activation is not None else op)


def _bound_of(op: Op) -> float:
    if isinstance(op, Clip):
        return max(abs(op.low), abs(op.high))
    if isinstance(op, Sigmoid | HardSigmoid | Tanh) or (isinstance(op, Softmax) and not op.log):
        return 1.0
    return math.inf
