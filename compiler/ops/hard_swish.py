"""HardSwish: x * max(0, min(1, x / 6 + 1 / 2))."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, maximum, minimum
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class HardSwish(Elementwise):
    """y = x * max(0, min(1, x / 6 + 1 / 2)). Source: ONNX specification, operator HardSwish."""

    onnx: ClassVar[tuple[str, ...]] = ("HardSwish",)

    def expr(self, *x: Expr) -> Expr:
        return x[0] * maximum(minimum(x[0] * (1 / 6) + 0.5, 1), 0)

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0]
        return (x * np.clip(x / 6 + 0.5, 0, 1)).astype(x.dtype)
