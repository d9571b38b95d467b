"""IsNaN: whether x is not a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise, Sample, random_array
from mdlc.compiler.types import Array, DType


@dataclass(frozen=True)
class IsNaN(Elementwise):
    """y = whether x is not a number. Source: ONNX specification, operator IsNaN."""

    onnx: ClassVar[tuple[str, ...]] = ("IsNaN",)

    def expr(self, *x: Expr) -> Expr:
        return call("is_nan", x[0])

    def reference(self, *inputs: Array) -> Array:
        return np.isnan(inputs[0])

    def result_dtype(self, *inputs: DType) -> DType:
        return DType.BOOL

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = random_array(1, 2, 3, 5)
        x[0, 1, 2] = np.nan
        return (Sample(cls(), (x,)),)
