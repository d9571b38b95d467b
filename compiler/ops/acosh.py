"""Acosh: acosh(x)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise, Sample, unary_sample
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Acosh(Elementwise):
    """y = acosh(x). Source: ONNX specification, operator Acosh."""

    onnx: ClassVar[tuple[str, ...]] = ("Acosh",)

    def expr(self, *x: Expr) -> Expr:
        return call("acosh", x[0])

    def reference(self, *inputs: Array) -> Array:
        result: Array = np.arccosh(inputs[0])
        return result

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        return (unary_sample(cls(), low=1.0, high=9.0),)
