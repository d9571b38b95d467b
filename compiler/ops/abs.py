"""Abs: abs(x)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array, TensorType


@dataclass(frozen=True)
class Abs(Elementwise):
    """y = abs(x). Source: ONNX specification, operator Abs."""

    onnx: ClassVar[tuple[str, ...]] = ("Abs",)

    def expr(self, *x: Expr) -> Expr:
        return call("abs", x[0])

    def reference(self, *inputs: Array) -> Array:
        result: Array = np.abs(inputs[0])
        return result

    def keeps_magnitude(self, inputs: Sequence[TensorType]) -> bool:
        return True
