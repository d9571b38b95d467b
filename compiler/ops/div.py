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
            quotient: Array = (np.abs(a) // np.abs(b)) * (np.sign(a) * np.sign(b))
            return quotient.astype(a.dtype)
        result: Array = a / b
        return result

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        return binary_samples(cls(), low=0.5, high=2.0, integers=True)
