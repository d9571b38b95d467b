"""HardSigmoid: max(0, min(1, alpha * x + beta))."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, maximum, minimum
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class HardSigmoid(Elementwise):
    """y = max(0, min(1, alpha * x + beta)). Source: ONNX specification, operator HardSigmoid."""

    alpha: float = 0.2
    beta: float = 0.5

    onnx: ClassVar[tuple[str, ...]] = ("HardSigmoid",)

    def expr(self, *x: Expr) -> Expr:
        return maximum(minimum(x[0] * self.alpha + self.beta, 1), 0)

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0]
        return np.clip(self.alpha * x + self.beta, 0, 1).astype(x.dtype)
