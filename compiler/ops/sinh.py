"""Sinh: sinh(x)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Sinh(Elementwise):
    """y = sinh(x). Source: ONNX specification, operator Sinh."""

    onnx: ClassVar[tuple[str, ...]] = ("Sinh",)

    def expr(self, *x: Expr) -> Expr:
        return call("sinh", x[0])

    def reference(self, *inputs: Array) -> Array:
        result: Array = np.sinh(inputs[0])
        return result
