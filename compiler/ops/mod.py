"""Mod: the remainder of a division."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise, Sample, random_array
from mdlc.compiler.types import Array
from mdlc.compiler.values import Values


@dataclass(frozen=True)
class Mod(Elementwise):
    """y = a mod b: the sign of b, or of a with fmod. Source: ONNX specification, operator Mod."""

    fmod: int = 0

    onnx: ClassVar[tuple[str, ...]] = ("Mod",)
    arity: ClassVar[int] = 2

    def expr(self, *x: Expr) -> Expr:
        return call("fmod" if self.fmod else "mod", x[0], x[1])

    def reference(self, *inputs: Array) -> Array:
        result: Array = np.fmod(*inputs) if self.fmod else np.mod(*inputs)
        return result

    def bounded(self, *operands: Values) -> Values:
        found = super().bounded(*operands)
        return Values(operands[1].most, found.mean, found.deviation)

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        a = np.arange(-20, 20, dtype=np.int32)
        b = np.where(np.arange(40) % 2 == 0, 7, -3).astype(np.int32)
        floats = random_array(1, 40, low=-9.0, high=9.0), random_array(2, 40, low=0.5, high=2.0)
        return (
            Sample(cls(), (a, b), label="integer"),
            Sample(cls(1), (a, b), label="integer_fmod"),
            Sample(cls(1), floats, label="float_fmod"),
        )
