"""Mul: a * b."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mdlc.compiler.expr import Expr
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Mul(Elementwise):
    """y = a * b. Source: ONNX specification, operator Mul."""

    onnx: ClassVar[tuple[str, ...]] = ("Mul",)
    arity: ClassVar[int] = 2
    commutative: ClassVar[bool] = True

    def expr(self, *x: Expr) -> Expr:
        return x[0] * x[1]

    def reference(self, *inputs: Array) -> Array:
        result: Array = inputs[0] * inputs[1]
        return result
