"""Div: a / b, towards zero for integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr
from mdlc.compiler.op import Elementwise, Sample, binary_samples
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Div(Elementwise):
    """y = a / b, towards zero for integers. Source: ONNX specification, operator Div."""

    onnx: ClassVar[tuple[str, ...]] = ("Div",)
    arity: ClassVar[int] = 2

    def expr(self, *x: Expr) -> Expr:
        return x[0] / x[1]

    def reference(self, *inputs: Array) -> Array:
        a, b = inputs
        if a.dtype.kind in "iu":
            with np.errstate(all="ignore"):  # of 0 comes 0
                down = np.floor_divide(a, b)
                # Floored; one more where that was not towards zero.
                rest = a - down * b
                up = (rest != 0) & ((a < 0) != (b < 0))
            return np.asarray(np.where(b == 0, 0, down + up)).astype(a.dtype)
        result: Array = a / b
        return result

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        return binary_samples(cls(), low=0.5, high=2.0, integers=True)
