"""Cosh: cosh(x)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Cosh(Elementwise):
    """y = cosh(x). Source: ONNX specification, operator Cosh."""

    onnx: ClassVar[tuple[str, ...]] = ("Cosh",)

    def expr(self, *x: Expr) -> Expr:
        return call("cosh", x[0])

    def reference(self, *inputs: Array) -> Array:
        result: Array = np.cosh(inputs[0])
        return result
