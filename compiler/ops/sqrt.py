"""Sqrt: sqrt(x)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise, Sample, unary_sample
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Sqrt(Elementwise):
    """y = sqrt(x). Source: ONNX specification, operator Sqrt."""

    onnx: ClassVar[tuple[str, ...]] = ("Sqrt",)

    def expr(self, *x: Expr) -> Expr:
        return call("sqrt", x[0])

    def reference(self, *inputs: Array) -> Array:
        result: Array = np.sqrt(inputs[0])
        return result

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        return (unary_sample(cls(), low=0.01, high=9.0),)
