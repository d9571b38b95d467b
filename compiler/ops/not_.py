"""Not: not a."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise, Sample, random_array
from mdlc.compiler.types import Array, DType


@dataclass(frozen=True)
class Not(Elementwise):
    """y = not a. Source: ONNX specification, operator Not."""

    onnx: ClassVar[tuple[str, ...]] = ("Not",)

    def expr(self, *x: Expr) -> Expr:
        return call("not", x[0])

    def reference(self, *inputs: Array) -> Array:
        result: Array = ~inputs[0]
        return result

    def result_dtype(self, *inputs: DType) -> DType:
        return DType.BOOL

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        return (Sample(cls(), (random_array(1, 2, 3, 5) > 0,)),)
