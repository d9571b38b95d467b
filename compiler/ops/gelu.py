"""Gelu: x times the normal distribution's cumulative function."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise, Sample, unary_sample
from mdlc.compiler.ops.erf import erf
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Gelu(Elementwise):
    """y = x * (1 + erf(x / sqrt(2))) / 2, or its tanh approximation.

    Source: ONNX specification, operator Gelu.
    """

    approximate: str = "none"

    onnx: ClassVar[tuple[str, ...]] = ("Gelu",)

    def expr(self, *x: Expr) -> Expr:
        if self.approximate == "tanh":  # (1 + tanh(z)) / 2 is the sigmoid of 2 z
            inner = x[0] * (x[0] * x[0] * 0.044715 + 1) * (2 * math.sqrt(2 / math.pi))
            return x[0] * call("sigmoid", inner)
        return call("gelu", x[0])

    def rounded_at(self, *inputs: Array) -> Array:
        return np.asarray(np.abs(inputs[0]) / 2)  # 1 and the error function, which may be -1

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0].astype(np.float64)
        if self.approximate == "tanh":
            inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
            y = 0.5 * x * (1 + np.tanh(inner))
        else:
            y = 0.5 * x * (1 + erf(x / math.sqrt(2)))
        return np.asarray(y, inputs[0].dtype)

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        return (unary_sample(cls()), unary_sample(cls("tanh")))
