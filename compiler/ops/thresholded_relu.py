"""ThresholdedRelu: x where above alpha, else 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, less, select
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class ThresholdedRelu(Elementwise):
    """y = x where above alpha, else 0. Source: ONNX specification, operator ThresholdedRelu."""

    alpha: float = 1.0

    onnx: ClassVar[tuple[str, ...]] = ("ThresholdedRelu",)

    def expr(self, *x: Expr) -> Expr:
        return select(less(self.alpha, x[0]), x[0], 0)

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0]
        return np.where(x > self.alpha, x, 0).astype(x.dtype)
