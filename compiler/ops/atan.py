"""Atan: atan(x)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Atan(Elementwise):
    """y = atan(x). Source: ONNX specification, operator Atan."""

    onnx: ClassVar[tuple[str, ...]] = ("Atan",)

    def expr(self, *x: Expr) -> Expr:
        return call("atan", x[0])

    def reference(self, *inputs: Array) -> Array:
        result: Array = np.arctan(inputs[0])
        return result
