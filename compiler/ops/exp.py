"""Exp: exp(x)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Exp(Elementwise):
    """y = exp(x). Source: ONNX specification, operator Exp."""

    onnx: ClassVar[tuple[str, ...]] = ("Exp",)

    def expr(self, *x: Expr) -> Expr:
        return call("exp", x[0])

    def reference(self, *inputs: Array) -> Array:
        result: Array = np.exp(inputs[0])
        return result
