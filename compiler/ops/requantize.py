"""Requantize: 8-bit integers of one scale to those of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.fixed_point import fixed_point, rescale, saturate
from mdlc.compiler.op import LayoutRule, Op, Sample
from mdlc.compiler.ops.quantized_add import check_bytes
from mdlc.compiler.types import Array, DType, TensorType


@dataclass(frozen=True)
class Requantize(Op):
    """y = clip(rescale(x - x_zero, multiplier, shift) + y_zero, low, high); i8 or u8 to either.

    Attributes:
        scale: the input's scale divided by the output's; fixed_point(scale) is the multiplier.
        x_zero, y_zero: zero points. low, high: bounds of the output.
        dtype: of the output.
    """

    scale: float
    x_zero: int = 0
    y_zero: int = 0
    low: int = -128
    high: int = 127
    dtype: DType = DType.I8

    layout_rule: ClassVar[LayoutRule] = LayoutRule.FOLLOWS
    channelwise: ClassVar[bool] = True

    def infer(self, *inputs: TensorType) -> TensorType:
        check_bytes("Requantize", self.dtype, *inputs)
        fixed_point(self.scale)
        return TensorType(inputs[0].shape, self.dtype)

    def reference(self, *inputs: Array) -> Array:
        steps = inputs[0].astype(np.int64) - self.x_zero
        value = rescale(steps, *fixed_point(self.scale)) + self.y_zero
        return saturate(value, self.low, self.high, self.dtype)

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        every = np.arange(-128, 128, dtype=np.int8).reshape(1, 16, 4, 4)
        odd = np.tile(np.arange(256, dtype=np.uint8), 2)[:301].reshape(7, 43)
        return (
            Sample(cls(0.7, 3, -5), (every,), label="finer"),
            Sample(cls(2.3, -100, 20, -90, 100), (every,), label="coarser"),
            Sample(cls(1.0, 128, 0), (odd,), label="u8_i8"),
            Sample(cls(0.5, 0, 128, 0, 255, DType.U8), (every,), label="i8_u8"),
        )
