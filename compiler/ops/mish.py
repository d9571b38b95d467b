"""Mish: x * tanh(log(1 + exp(x)))."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call, minimum
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array


def _gate(e: Expr) -> Expr:
    """tanh(log(1 + e)) without a logarithm: ((1 + e)^2 - 1) / ((1 + e)^2 + 1)."""
    n = e * (e + 2)
    return n / (n + 2)


@dataclass(frozen=True)
class Mish(Elementwise):
    """y = x * tanh(log(1 + exp(x))). Source: ONNX specification, operator Mish."""

    onnx: ClassVar[tuple[str, ...]] = ("Mish",)

    def expr(self, *x: Expr) -> Expr:
        return x[0] * _gate(call("exp", minimum(x[0], 20)))

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0]
        return (x * np.tanh(np.logaddexp(x.astype(np.float64), 0))).astype(x.dtype)
