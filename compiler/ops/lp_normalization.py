"""LpNormalization: divided by the norm along an axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Op, normalize_axis
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.div import Div
from mdlc.compiler.ops.equal import Equal
from mdlc.compiler.ops.reduce import Reduce
from mdlc.compiler.ops.where import Where


@dataclass(frozen=True)
class LpNormalization(Op):
    """Imported as a reduction and a division; a norm of 0 leaves zeros.

    Source: ONNX specification, operator LpNormalization.
    """

    onnx: ClassVar[tuple[str, ...]] = ("LpNormalization",)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x, p = n.input(0), n.attr("p", 2)
        if p not in (1, 2):
            raise n.error(f"a norm of p = {p} is not supported", "p is 1 or 2")
        axis = normalize_axis(n.attr("axis", -1), len(x.shape))
        norm = n.make(Reduce(f"l{p}", (axis,)), x)
        kind = x.type.dtype.numpy
        none = n.make(Equal(), norm, constant(np.zeros((), kind)))
        return n.make(Div(), x, n.make(Where(), none, constant(np.ones((), kind)), norm))
