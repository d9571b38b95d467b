"""Relu: max(x, 0)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, maximum
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array, TensorType


@dataclass(frozen=True)
class Relu(Elementwise):
    """y = max(x, 0). Source: ONNX specification, operator Relu."""

    onnx: ClassVar[tuple[str, ...]] = ("Relu",)

    def expr(self, *x: Expr) -> Expr:
        return maximum(x[0], 0)

    def reference(self, *inputs: Array) -> Array:
        return np.asarray(np.maximum(inputs[0], inputs[0].dtype.type(0)))

    def keeps_magnitude(self, inputs: Sequence[TensorType]) -> bool:
        return True
