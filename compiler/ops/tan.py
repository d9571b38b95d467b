"""Tan: tan(x)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise, Sample, unary_sample
from mdlc.compiler.types import Array
from mdlc.compiler.values import Values


@dataclass(frozen=True)
class Tan(Elementwise):
    """y = tan(x). Source: ONNX specification, operator Tan."""

    onnx: ClassVar[tuple[str, ...]] = ("Tan",)

    def expr(self, *x: Expr) -> Expr:
        return call("tan", x[0])

    def reference(self, *inputs: Array) -> Array:
        result: Array = np.tan(inputs[0])
        return result

    def bounded(self, *operands: Values) -> Values:
        found = super().bounded(*operands)
        most = np.where(operands[0].most < math.pi / 2, found.most, np.inf)  # its first pole
        return Values(most, found.mean, found.deviation)

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        return (unary_sample(cls(), low=-1.4, high=1.4),)
