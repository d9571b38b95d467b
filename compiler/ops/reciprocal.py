"""Reciprocal: 1 / x."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mdlc.compiler.expr import Expr
from mdlc.compiler.op import Elementwise, Sample, unary_sample
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Reciprocal(Elementwise):
    """y = 1 / x. Source: ONNX specification, operator Reciprocal."""

    onnx: ClassVar[tuple[str, ...]] = ("Reciprocal",)

    def expr(self, *x: Expr) -> Expr:
        return 1 / x[0]

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0]
        return (1 / x).astype(x.dtype)

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        return (unary_sample(cls(), low=0.01, high=9.0),)
