"""Greater: a > b."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array, DType


@dataclass(frozen=True)
class Greater(Elementwise):
    """y = a > b. Source: ONNX specification, operator Greater."""

    onnx: ClassVar[tuple[str, ...]] = ("Greater",)
    arity: ClassVar[int] = 2

    def expr(self, *x: Expr) -> Expr:
        return call("lt", x[1], x[0])

    def reference(self, *inputs: Array) -> Array:
        result: Array = inputs[0] > inputs[1]
        return result

    def result_dtype(self, *inputs: DType) -> DType:
        return DType.BOOL
