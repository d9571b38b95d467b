"""Lookup: any function of one 8-bit integer, by a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.op import LayoutRule, Op, Sample
from mdlc.compiler.ops.quantized_add import check_bytes
from mdlc.compiler.types import Array, TensorType


@dataclass(frozen=True)
class Lookup(Op):
    """y = table[x - lowest], the lowest being -128 for i8 and 0 for u8.

    Inputs: x (i8 or u8) and a constant table of 256 values of i8 or u8. Every activation of a
    quantised tensor is such a table.
    """

    layout_rule: ClassVar[LayoutRule] = LayoutRule.FOLLOWS

    def infer(self, *inputs: TensorType) -> TensorType:
        x, table = inputs
        check_bytes("Lookup", table.dtype, x)
        if table.shape != (256,):
            raise MdlcError(f"Lookup needs a table of 256 values, not {table}")
        return TensorType(x.shape, table.dtype)

    def reference(self, *inputs: Array) -> Array:
        x, table = inputs
        index = x.astype(np.int64) - int(np.iinfo(x.dtype).min)
        result: Array = table[index]
        return result

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        rng = np.random.default_rng(1)
        signed = rng.integers(-128, 127, 256, np.int8, endpoint=True)
        unsigned = rng.integers(0, 255, 256, np.uint8, endpoint=True)
        x = rng.integers(-128, 127, (1, 24, 5, 7), np.int8, endpoint=True)
        y = rng.integers(0, 255, (3, 211), np.uint8, endpoint=True)
        return (
            Sample(cls(), (x, signed), (1,), "i8"),
            Sample(cls(), (y, unsigned), (1,), "u8"),
            Sample(cls(), (x, unsigned), (1,), "i8_u8"),
        )
