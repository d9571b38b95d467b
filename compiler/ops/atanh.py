"""Atanh: atanh(x)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise, Sample, unary_sample
from mdlc.compiler.types import Array
from mdlc.compiler.values import Values


@dataclass(frozen=True)
class Atanh(Elementwise):
    """y = atanh(x). Source: ONNX specification, operator Atanh."""

    onnx: ClassVar[tuple[str, ...]] = ("Atanh",)

    def expr(self, *x: Expr) -> Expr:
        return call("atanh", x[0])

    def reference(self, *inputs: Array) -> Array:
        result: Array = np.arctanh(inputs[0])
        return result

    def bounded(self, *operands: Values) -> Values:
        found = super().bounded(*operands)
        most = np.where(operands[0].most < 1, found.most, np.inf)
        return Values(most, found.mean, found.deviation)

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        return (unary_sample(cls(), low=-0.95, high=0.95),)
