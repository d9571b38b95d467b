"""Round: round(x)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Round(Elementwise):
    """y = round(x). Source: ONNX specification, operator Round."""

    onnx: ClassVar[tuple[str, ...]] = ("Round",)

    def expr(self, *x: Expr) -> Expr:
        return call("round", x[0])

    def reference(self, *inputs: Array) -> Array:
        result: Array = np.rint(inputs[0])
        return result
