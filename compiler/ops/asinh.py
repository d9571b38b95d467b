"""Asinh: asinh(x)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Asinh(Elementwise):
    """y = asinh(x). Source: ONNX specification, operator Asinh."""

    onnx: ClassVar[tuple[str, ...]] = ("Asinh",)

    def expr(self, *x: Expr) -> Expr:
        return call("asinh", x[0])

    def reference(self, *inputs: Array) -> Array:
        result: Array = np.arcsinh(inputs[0])
        return result
