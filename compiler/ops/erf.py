"""Erf: erf(x)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array

# Beyond 6, erf is 1 in double precision.
_STEP, _LAST = 1 / 16, 6.0
_TERMS = 10


def erf(x: Array) -> Array:
    """erf in double precision, of an array: Taylor's series at the nearest of 193 points.

    The derivatives are Hermite polynomials times a normal curve (Abramowitz and Stegun, 7.1.19);
    what is left out is below 1e-16.
    """
    near = np.clip(np.rint(np.nan_to_num(x) / _STEP), -_LAST / _STEP, _LAST / _STEP)
    points = np.arange(-_LAST, _LAST + _STEP, _STEP)
    index = (near + _LAST / _STEP).astype(np.int64)
    derivatives = [np.array([math.erf(p) for p in points])]
    derivatives.append(2 / math.sqrt(math.pi) * np.exp(-points * points))
    for n in range(2, _TERMS + 1):
        before = derivatives[n - 2] if n > 2 else 0.0
        derivatives.append(-2 * (points * derivatives[n - 1] + (n - 2) * before))
    step = np.clip(x - near * _STEP, -_STEP, _STEP)
    total = np.zeros_like(step)
    for n in range(_TERMS, 0, -1):
        total = (total + derivatives[n][index]) * step / n
    return np.asarray(total + derivatives[0][index])


@dataclass(frozen=True)
class Erf(Elementwise):
    """y = erf(x). Source: ONNX specification, operator Erf."""

    onnx: ClassVar[tuple[str, ...]] = ("Erf",)

    def expr(self, *x: Expr) -> Expr:
        return call("erf", x[0])

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0]
        return np.asarray(erf(x.astype(np.float64)), x.dtype)
