"""Selu: gamma * x where positive, else gamma * alpha * (exp(x) - 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call, less, select
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Selu(Elementwise):
    """y = gamma * x where positive, else gamma * alpha * (exp(x) - 1).

    Source: ONNX specification, operator Selu.
    """

    alpha: float = 1.67326319217681884765625
    gamma: float = 1.05070102214813232421875

    onnx: ClassVar[tuple[str, ...]] = ("Selu",)

    def expr(self, *x: Expr) -> Expr:
        return self.gamma * select(less(0, x[0]), x[0], (call("exp", x[0]) - 1) * self.alpha)

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0]
        y = np.where(x > 0, x, self.alpha * np.expm1(np.minimum(x, 0)))
        return (self.gamma * y).astype(x.dtype)
