"""Pow: a ** b."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise, Sample, binary_samples
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Pow(Elementwise):
    """y = a ** b. Source: ONNX specification, operator Pow."""

    onnx: ClassVar[tuple[str, ...]] = ("Pow",)
    arity: ClassVar[int] = 2

    def expr(self, *x: Expr) -> Expr:
        return call("pow", x[0], x[1])

    def reference(self, *inputs: Array) -> Array:
        a, b = inputs
        return np.asarray(np.power(a, b.astype(a.dtype)), a.dtype)

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        return binary_samples(cls(), low=0.1, high=2.0)
