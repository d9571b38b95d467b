"""Sin: sin(x)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array
from mdlc.compiler.values import Values


@dataclass(frozen=True)
class Sin(Elementwise):
    """y = sin(x). Source: ONNX specification, operator Sin."""

    onnx: ClassVar[tuple[str, ...]] = ("Sin",)

    def expr(self, *x: Expr) -> Expr:
        return call("sin", x[0])

    def reference(self, *inputs: Array) -> Array:
        result: Array = np.sin(inputs[0])
        return result

    def bounded(self, *operands: Values) -> Values:
        found = super().bounded(*operands)
        return Values(np.minimum(operands[0].most, 1.0), found.mean, found.deviation)
