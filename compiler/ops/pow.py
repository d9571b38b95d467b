"""Pow: a ** b."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise, Sample, binary_samples, random_array
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Pow(Elementwise):
    """y = a ** b. Source: ONNX specification, operator Pow."""

    onnx: ClassVar[tuple[str, ...]] = ("Pow",)
    arity: ClassVar[int] = 2

    def expr(self, *x: Expr) -> Expr:
        return call("pow", x[0], x[1])

    def reference(self, *inputs: Array) -> Array:
        a, b = inputs
        if a.dtype.kind in "iu" and b.dtype.kind in "iu":  # exact; negative exponents truncate
            a, b = np.broadcast_arrays(a, b)
            whole = np.power(a, np.maximum(b, 0).astype(a.dtype))
            with np.errstate(all="ignore"):
                below = np.power(a.astype(np.float64), b.astype(np.float64))
                return np.where(b < 0, below.astype(a.dtype), whole)
        if a.dtype.kind in "iu":  # a fractional exponent: truncated at the end
            with np.errstate(all="ignore"):
                return np.asarray(np.power(a.astype(np.float64), b)).astype(a.dtype)
        return np.asarray(np.power(a, b.astype(a.dtype)), a.dtype)

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        whole = np.array([0, 1, 4, 9, 16, 100])
        return (
            *binary_samples(cls(), low=0.1, high=2.0),
            Sample(cls(), (whole, np.array([3, 5, 2, 0, 1, 4])), label="int64"),
            Sample(cls(), (whole, np.array(0.5, np.float32)), (1,), label="root_of_int64"),
            Sample(cls(), (np.array([-1, 1, 2]), np.array([-3, -2, 5])), label="negative"),
            Sample(cls(), (random_array(1, 3, 4), np.array([1, 2, 3, 0])), label="by_int64"),
        )
