"""IsInf: whether a number is infinite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise, Sample, random_array
from mdlc.compiler.types import Array, DType


@dataclass(frozen=True)
class IsInf(Elementwise):
    """y = whether x is infinite, of either sign or of one.

    Source: ONNX specification, operator IsInf.
    """

    detect_negative: int = 1
    detect_positive: int = 1

    onnx: ClassVar[tuple[str, ...]] = ("IsInf",)

    def expr(self, *x: Expr) -> Expr:
        above, below = call("eq", x[0], math.inf), call("eq", x[0], -math.inf)
        if self.detect_positive and self.detect_negative:
            return call("or", above, below)
        if self.detect_positive:
            return above
        # Nothing to detect: a mask that never holds, and still a formula of x.
        return below if self.detect_negative else call("and", above, below)

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0]
        found = np.zeros(x.shape, np.bool_)
        if self.detect_positive:
            found = found | np.isposinf(x)
        if self.detect_negative:
            found = found | np.isneginf(x)
        return np.asarray(found)

    def result_dtype(self, *inputs: DType) -> DType:
        return DType.BOOL

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = random_array(1, 2, 3, 5)
        x[0, 1, :3] = np.inf, -np.inf, np.nan
        return tuple(
            Sample(cls(negative, positive), (x,), label=f"negative{negative}_positive{positive}")
            for negative in (0, 1)
            for positive in (0, 1)
        )
