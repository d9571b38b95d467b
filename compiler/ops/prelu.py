"""PRelu: x where positive, else slope * x."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, less, select
from mdlc.compiler.op import Elementwise, Sample, binary_samples
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class PRelu(Elementwise):
    """y = x if x >= 0 else slope * x. Source: ONNX specification, operator PRelu."""

    onnx: ClassVar[tuple[str, ...]] = ("PRelu",)
    arity: ClassVar[int] = 2

    def expr(self, *x: Expr) -> Expr:
        return select(less(x[0], 0), x[0] * x[1], x[0])

    def reference(self, *inputs: Array) -> Array:
        return np.where(inputs[0] < 0, inputs[0] * inputs[1], inputs[0])

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        return binary_samples(cls(), broadcast_first=False)
