"""BitwiseXor: a or b but not both, bit by bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise, Sample
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class BitwiseXor(Elementwise):
    """y = a or b but not both, bit by bit. Source: ONNX specification, operator BitwiseXor."""

    onnx: ClassVar[tuple[str, ...]] = ("BitwiseXor",)
    arity: ClassVar[int] = 2

    def expr(self, *x: Expr) -> Expr:
        return call("bit_xor", x[0], x[1])

    def reference(self, *inputs: Array) -> Array:
        result: Array = inputs[0] ^ inputs[1]
        return result

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        a, b = np.arange(-20, 20).reshape(8, 5), np.array([-7, 2, 1, 255, 9])
        return tuple(
            Sample(cls(), (a.astype(kind), b.astype(kind)), label=kind.__name__)
            for kind in (np.int32, np.uint8, np.int64, np.uint64)
        )
