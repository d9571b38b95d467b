"""Erf: erf(x)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Erf(Elementwise):
    """y = erf(x). Source: ONNX specification, operator Erf."""

    onnx: ClassVar[tuple[str, ...]] = ("Erf",)

    def expr(self, *x: Expr) -> Expr:
        return call("erf", x[0])

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0]
        return np.asarray(np.vectorize(math.erf, otypes=[np.float64])(x), x.dtype)
