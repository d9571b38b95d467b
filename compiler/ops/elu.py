"""Elu: x where positive, else alpha * (exp(x) - 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call, less, select
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Elu(Elementwise):
    """y = x where positive, else alpha * (exp(x) - 1). Source: ONNX specification, operator Elu."""

    alpha: float = 1.0

    onnx: ClassVar[tuple[str, ...]] = ("Elu",)

    def expr(self, *x: Expr) -> Expr:
        return select(less(x[0], 0), (call("exp", x[0]) - 1) * self.alpha, x[0])

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0]
        return np.where(x < 0, self.alpha * np.expm1(np.minimum(x, 0)), x).astype(x.dtype)
