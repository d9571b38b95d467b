"""Floor: floor(x)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Floor(Elementwise):
    """y = floor(x). Source: ONNX specification, operator Floor."""

    onnx: ClassVar[tuple[str, ...]] = ("Floor",)

    def expr(self, *x: Expr) -> Expr:
        return call("floor", x[0])

    def reference(self, *inputs: Array) -> Array:
        result: Array = np.floor(inputs[0])
        return result
