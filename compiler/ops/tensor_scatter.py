"""TensorScatter: a few steps written into a cache of keys or values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Op, normalize_axis
from mdlc.compiler.ops.add import Add
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.expand import Expand
from mdlc.compiler.ops.less import Less
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.scatter_elements import ScatterElements
from mdlc.compiler.ops.sub import Sub
from mdlc.compiler.ops.where import Where


@dataclass(frozen=True)
class TensorScatter(Op):
    """Imported as ScatterElements at indices that are computed.

    Source: ONNX specification, operator TensorScatter.
    """

    onnx: ClassVar[tuple[str, ...]] = ("TensorScatter",)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        cache, update = n.input(0), n.input(1)
        rank = len(cache.shape)
        axis = normalize_axis(n.attr("axis", -2), rank)
        mode = n.attr("mode", "linear")
        others = [a for a in range(rank) if a != axis]
        fits = len(update.shape) == rank and all(cache.shape[a] == update.shape[a] for a in others)
        if axis == 0 or not fits or update.shape[axis] > cache.shape[axis]:
            raise n.error(f"{update.type} does not fit into {cache.type} along axis {axis}")
        if mode not in ("linear", "circular"):
            raise n.error(f"mode {mode!r} is not known")
        steps, most = update.shape[axis], cache.shape[axis]
        along = [1] * rank
        along[axis] = steps
        at = constant(np.arange(steps, dtype=np.int64).reshape(along))
        first = n.optional(2)
        if first is not None:
            at = n.make(Add(), n.make(Reshape(_batch(cache, rank)), first), at)
        if mode == "circular":
            length = constant(np.array(most, np.int64))
            at = n.make(Where(), n.make(Less(), at, length), at, n.make(Sub(), at, length))
        every = n.make(Expand(update.shape), at)
        return n.make(ScatterElements(axis), cache, every, update)


def _batch(cache: Node, rank: int) -> tuple[int, ...]:
    """The shape of one number for each sequence of a batch."""
    return (cache.shape[0], *(1,) * (rank - 1))
