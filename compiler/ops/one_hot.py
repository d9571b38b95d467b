"""OneHot: indices as rows with one value that is on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Op, normalize_axis
from mdlc.compiler.ops.add import Add
from mdlc.compiler.ops.cast import Cast
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.equal import Equal
from mdlc.compiler.ops.less import Less
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.slice import Slice
from mdlc.compiler.ops.where import Where
from mdlc.compiler.types import DType


@dataclass(frozen=True)
class OneHot(Op):
    """Imported as a comparison with a range; the depth must be known.

    Source: ONNX specification, operator OneHot.
    """

    onnx: ClassVar[tuple[str, ...]] = ("OneHot",)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        indices, values = n.input(0), n.input(2)
        depth = n.const(1)
        if depth.size != 1 or values.shape != (2,):
            raise n.error(f"depth {depth.tolist()} and values {values.type} are malformed")
        count, rank = int(depth.reshape(-1)[0]), len(indices.shape) + 1
        axis = normalize_axis(n.attr("axis", -1), rank)
        shape = (*indices.shape[:axis], 1, *indices.shape[axis:])
        index = n.make(Reshape(shape), n.make(Cast(DType.I64), indices))
        # Negative indices count from the end; others out of range are on nowhere.
        wrapped = n.make(Add(), index, constant(np.array(count, np.int64)))
        negative = n.make(Less(), index, constant(np.array(0, np.int64)))
        index = n.make(Where(), negative, wrapped, index)
        along = [count if a == axis else 1 for a in range(rank)]
        on = n.make(Equal(), index, constant(np.arange(count, dtype=np.int64).reshape(along)))
        off, there = (
            n.make(Reshape(()), n.make(Slice.along((2,), 0, at, 1), values)) for at in (0, 1)
        )
        return n.make(Where(), on, there, off)
