"""Cos: cos(x)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array
from mdlc.compiler.values import Values


@dataclass(frozen=True)
class Cos(Elementwise):
    """y = cos(x). Source: ONNX specification, operator Cos."""

    onnx: ClassVar[tuple[str, ...]] = ("Cos",)

    def expr(self, *x: Expr) -> Expr:
        return call("cos", x[0])

    def reference(self, *inputs: Array) -> Array:
        result: Array = np.cos(inputs[0])
        return result

    def bounded(self, *operands: Values) -> Values:
        found = super().bounded(*operands)
        return Values(np.ones_like(found.most), found.mean, found.deviation)
