"""Tanh: tanh(x)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Tanh(Elementwise):
    """y = tanh(x). Source: ONNX specification, operator Tanh."""

    onnx: ClassVar[tuple[str, ...]] = ("Tanh",)

    def expr(self, *x: Expr) -> Expr:
        return call("tanh", x[0])

    def reference(self, *inputs: Array) -> Array:
        return np.tanh(inputs[0])
