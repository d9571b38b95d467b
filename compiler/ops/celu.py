"""Celu: max(x, 0) + min(alpha * (exp(x / alpha) - 1), 0)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call, maximum, minimum
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Celu(Elementwise):
    """y = max(x, 0) + min(alpha * (exp(x / alpha) - 1), 0).

    Source: ONNX specification, operator Celu.
    """

    alpha: float = 1.0

    onnx: ClassVar[tuple[str, ...]] = ("Celu",)

    def expr(self, *x: Expr) -> Expr:
        return maximum(x[0], 0) + minimum((call("exp", x[0] / self.alpha) - 1) * self.alpha, 0)

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0]
        y = np.maximum(x, 0) + np.minimum(self.alpha * np.expm1(x / self.alpha), 0)
        return y.astype(x.dtype)
