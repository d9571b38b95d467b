"""BitwiseNot: every bit turned over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise, Sample
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class BitwiseNot(Elementwise):
    """y = not x, bit by bit. Source: ONNX specification, operator BitwiseNot."""

    onnx: ClassVar[tuple[str, ...]] = ("BitwiseNot",)

    def expr(self, *x: Expr) -> Expr:
        return call("bit_not", x[0])

    def reference(self, *inputs: Array) -> Array:
        return np.invert(inputs[0])

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = np.arange(-20, 20).reshape(8, 5)
        return tuple(
            Sample(cls(), (x.astype(kind),), label=kind.__name__)
            for kind in (np.int32, np.uint8, np.uint64)
        )
