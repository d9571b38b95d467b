"""Sign: -1, 0 or 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, less, select
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Sign(Elementwise):
    """y = -1, 0 or 1. Source: ONNX specification, operator Sign."""

    onnx: ClassVar[tuple[str, ...]] = ("Sign",)

    def expr(self, *x: Expr) -> Expr:
        # Of 0 and NaN, itself.
        return select(less(0, x[0]), 1, select(less(x[0], 0), -1, x[0]))

    def reference(self, *inputs: Array) -> Array:
        return np.sign(inputs[0])
