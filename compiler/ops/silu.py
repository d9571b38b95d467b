"""Silu: x * sigmoid(x)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Silu(Elementwise):
    """y = x * sigmoid(x). Source: ONNX specification, operator Swish."""

    onnx: ClassVar[tuple[str, ...]] = ("Swish",)

    def expr(self, *x: Expr) -> Expr:
        return x[0] * call("sigmoid", x[0])

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0]
        return np.asarray(x / (1 + np.exp(-x.astype(np.float64))), x.dtype)

    def to_onnx(self) -> None:
        # ONNX has Swish from opset 24 on; the derived tests use opset 20.
        return None
