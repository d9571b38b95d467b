"""Hardmax: 1 at the first largest element along an axis, else 0."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Op, normalize_axis
from mdlc.compiler.ops.arg_reduce import ArgReduce
from mdlc.compiler.ops.cast import Cast
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.equal import Equal
from mdlc.compiler.ops.reshape import Reshape


@dataclass(frozen=True)
class Hardmax(Op):
    """Imported as position = ArgMax(x). Source: ONNX specification, operator Hardmax.

    Before opset 13 the largest is sought over all axes from `axis` on.
    """

    onnx: ClassVar[tuple[str, ...]] = ("Hardmax",)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x = n.input(0)
        shape = x.shape
        axis = normalize_axis(n.attr("axis", -1 if n.opset >= 13 else 1), len(shape))
        if n.opset < 13:
            rows = math.prod(shape[:axis]), math.prod(shape[axis:])
            return n.make(Reshape(shape), _along(n, n.make(Reshape(rows), x), 1))
        return _along(n, x, axis)


def _along(n: OnnxNode, x: Node, axis: int) -> Node:
    positions = np.arange(x.shape[axis], dtype=np.int64)
    positions = positions.reshape(-1, *(1 for _ in x.shape[axis + 1 :]))
    chosen = n.make(Equal(), n.make(ArgReduce("max", axis), x), constant(positions))
    return n.make(Cast(x.type.dtype), chosen)
