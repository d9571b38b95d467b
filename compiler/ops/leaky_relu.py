"""LeakyRelu: x where positive, else alpha * x."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, less, select
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array, TensorType


@dataclass(frozen=True)
class LeakyRelu(Elementwise):
    """y = x where positive, else alpha * x. Source: ONNX specification, operator LeakyRelu."""

    alpha: float = 0.01

    onnx: ClassVar[tuple[str, ...]] = ("LeakyRelu",)

    def expr(self, *x: Expr) -> Expr:
        return select(less(x[0], 0), x[0] * self.alpha, x[0])

    def reference(self, *inputs: Array) -> Array:
        return np.where(inputs[0] < 0, inputs[0] * inputs[0].dtype.type(self.alpha), inputs[0])

    def keeps_magnitude(self, inputs: Sequence[TensorType]) -> bool:
        return abs(self.alpha) <= 1
