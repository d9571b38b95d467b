"""Xor: a or b but not both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise, Sample, random_array
from mdlc.compiler.types import Array, DType


@dataclass(frozen=True)
class Xor(Elementwise):
    """y = a or b but not both. Source: ONNX specification, operator Xor."""

    onnx: ClassVar[tuple[str, ...]] = ("Xor",)
    arity: ClassVar[int] = 2

    def expr(self, *x: Expr) -> Expr:
        return call("xor", x[0], x[1])

    def reference(self, *inputs: Array) -> Array:
        result: Array = inputs[0] ^ inputs[1]
        return result

    def result_dtype(self, *inputs: DType) -> DType:
        return DType.BOOL

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        a = random_array(1, 2, 3, 5) > 0
        b = random_array(2, 2, 3, 5) > 0
        return (Sample(cls(), (a, b)),)
