"""BitShift: bits moved to the left or to the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise, OnnxForm, Sample
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class BitShift(Elementwise):
    """y = a shifted by b bits; all of them are out where b is negative or too large.

    The sign stays at a shift to the right.

    Attributes:
        direction: LEFT or RIGHT.

    Source: ONNX specification, operator BitShift (unsigned integers).
    """

    direction: str = "LEFT"

    onnx: ClassVar[tuple[str, ...]] = ("BitShift",)
    arity: ClassVar[int] = 2

    def expr(self, *x: Expr) -> Expr:
        return call("shift_left" if self.direction == "LEFT" else "shift_right", x[0], x[1])

    def reference(self, *inputs: Array) -> Array:
        a, b = np.broadcast_arrays(*inputs)
        bits = a.dtype.itemsize * 8
        valid = (b >= 0) & (b < bits)
        by = np.where(valid, b, 0)
        if self.direction == "LEFT":
            return np.where(valid, np.left_shift(a, by), 0).astype(a.dtype)
        gone = np.where(a < 0, -1, 0).astype(a.dtype)
        return np.where(valid, np.right_shift(a, by), gone).astype(a.dtype)

    def to_onnx(self) -> OnnxForm:
        return "BitShift", {"direction": self.direction}, ()

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        a = np.array([0, 1, 2, 100, 200, 255]).reshape(2, 3)
        b = np.array([0, 3, 7])
        return tuple(
            Sample(cls(direction), (a.astype(kind), b.astype(kind)),
                   label=f"{direction}_{kind.__name__}")
            for direction in ("LEFT", "RIGHT")
            for kind in (np.uint8, np.uint32, np.uint64)
        )  # fmt: skip
