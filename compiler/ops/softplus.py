"""Softplus: log(1 + exp(x))."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call, maximum
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Softplus(Elementwise):
    """y = log(1 + exp(x)). Source: ONNX specification, operator Softplus."""

    onnx: ClassVar[tuple[str, ...]] = ("Softplus",)

    def expr(self, *x: Expr) -> Expr:
        return maximum(x[0], 0) + call("log", call("exp", -call("abs", x[0])) + 1)

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0]
        return np.logaddexp(x, 0).astype(x.dtype)
