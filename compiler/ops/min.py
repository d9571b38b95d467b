"""Min: the smaller of a and b."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call, minimum, select
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array, TensorType


@dataclass(frozen=True)
class Min(Elementwise):
    """y = the smaller of a and b. Source: ONNX specification, operator Min."""

    onnx: ClassVar[tuple[str, ...]] = ("Min",)
    arity: ClassVar[int] = 2
    commutative: ClassVar[bool] = True

    def expr(self, *x: Expr) -> Expr:
        # The primitive keeps a NaN of its first operand.
        return select(call("not", call("is_nan", x[1])), minimum(x[0], x[1]), x[1])

    def reference(self, *inputs: Array) -> Array:
        return np.minimum(inputs[0], inputs[1])

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        result = n.input(0)
        for index in range(1, len(n.inputs)):
            result = n.make(cls(), result, n.input(index))
        return result

    def keeps_magnitude(self, inputs: Sequence[TensorType]) -> bool:
        return True
