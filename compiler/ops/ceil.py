"""Ceil: ceil(x)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Ceil(Elementwise):
    """y = ceil(x). Source: ONNX specification, operator Ceil."""

    onnx: ClassVar[tuple[str, ...]] = ("Ceil",)

    def expr(self, *x: Expr) -> Expr:
        return call("ceil", x[0])

    def reference(self, *inputs: Array) -> Array:
        result: Array = np.ceil(inputs[0])
        return result
