"""Acos: acos(x)."""

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
class Acos(Elementwise):
    """y = acos(x). Source: ONNX specification, operator Acos."""

    onnx: ClassVar[tuple[str, ...]] = ("Acos",)

    def expr(self, *x: Expr) -> Expr:
        return call("acos", x[0])

    def reference(self, *inputs: Array) -> Array:
        result: Array = np.arccos(inputs[0])
        return result

    def bounded(self, *operands: Values) -> Values:
        found = super().bounded(*operands)
        return Values(np.full_like(found.most, math.pi), found.mean, found.deviation)

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        return (unary_sample(cls(), low=-0.95, high=0.95),)
