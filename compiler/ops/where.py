"""Where: one of two values by a condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, select
from mdlc.compiler.op import Elementwise, Sample, random_array
from mdlc.compiler.types import Array, DType, TensorType


@dataclass(frozen=True)
class Where(Elementwise):
    """y = a where the condition holds, else b. Source: ONNX specification, operator Where."""

    onnx: ClassVar[tuple[str, ...]] = ("Where",)
    arity: ClassVar[int] = 3

    def expr(self, *x: Expr) -> Expr:
        return select(x[0], x[1], x[2])

    def result_dtype(self, *inputs: DType) -> DType:
        return inputs[1]

    def reference(self, *inputs: Array) -> Array:
        return np.where(inputs[0], inputs[1], inputs[2])

    def keeps_magnitude(self, inputs: Sequence[TensorType]) -> bool:
        return True

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        mask = random_array(1, 2, 3, 9) > 0
        a, b = random_array(2, 2, 3, 9), random_array(3, 3, 1)
        whole = np.arange(9)
        return (
            Sample(cls(), (mask, a, b), label="broadcast"),
            Sample(cls(), (mask, whole, np.array(-1)), (2,), label="int64"),
        )
