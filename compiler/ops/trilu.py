"""Trilu: the upper or lower triangle of matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Op
from mdlc.compiler.ops.add import Add
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.greater_or_equal import GreaterOrEqual
from mdlc.compiler.ops.less_or_equal import LessOrEqual
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.where import Where


@dataclass(frozen=True)
class Trilu(Op):
    """Imported as a choice by column and row; the diagonal may come at run time.

    Source: ONNX specification, operator Trilu.
    """

    onnx: ClassVar[tuple[str, ...]] = ("Trilu",)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x = n.input(0)
        if len(x.shape) < 2:
            raise n.error(f"{x.type} is not a matrix")
        row = constant(np.arange(x.shape[-2], dtype=np.int64)[:, None])
        column = constant(np.arange(x.shape[-1], dtype=np.int64)[None])
        diagonal = n.optional(1) or constant(np.array(0, np.int64))
        if diagonal.type.size != 1:
            raise n.error(f"k is {diagonal.type}, not one value")
        bound = n.make(Add(), row, n.make(Reshape((1, 1)), diagonal))
        test = GreaterOrEqual() if n.attr("upper", 1) else LessOrEqual()
        zero = constant(np.zeros((), x.type.dtype.numpy))
        return n.make(Where(), n.make(test, column, bound), x, zero)
