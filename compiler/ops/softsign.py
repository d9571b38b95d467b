"""Softsign: x / (1 + |x|)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Softsign(Elementwise):
    """y = x / (1 + |x|). Source: ONNX specification, operator Softsign."""

    onnx: ClassVar[tuple[str, ...]] = ("Softsign",)

    def expr(self, *x: Expr) -> Expr:
        return x[0] / (call("abs", x[0]) + 1)

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0]
        return np.asarray(x / (1 + np.abs(x)), x.dtype)
