"""Neg: -x."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mdlc.compiler.expr import Expr
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array, TensorType


@dataclass(frozen=True)
class Neg(Elementwise):
    """y = -x. Source: ONNX specification, operator Neg."""

    onnx: ClassVar[tuple[str, ...]] = ("Neg",)

    def expr(self, *x: Expr) -> Expr:
        return -x[0]

    def reference(self, *inputs: Array) -> Array:
        result: Array = -inputs[0]
        return result

    def keeps_magnitude(self, inputs: Sequence[TensorType]) -> bool:
        return True
