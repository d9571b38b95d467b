"""Sigmoid: 1 / (1 + exp(-x))."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Sigmoid(Elementwise):
    """y = 1 / (1 + exp(-x)). Source: ONNX specification, operator Sigmoid."""

    onnx: ClassVar[tuple[str, ...]] = ("Sigmoid",)

    def expr(self, *x: Expr) -> Expr:
        return call("sigmoid", x[0])

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0]
        e = np.exp(-np.abs(x))
        return np.asarray(np.where(x < 0, e, 1) / (1 + e), x.dtype)
