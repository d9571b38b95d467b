"""QuantizedAveragePool2D: the mean of each window of 8-bit integers, rescaled in fixed point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.fixed_point import fixed_point, limits, rescale, saturate
from mdlc.compiler.op import Cost, LayoutRule, Op, Sample
from mdlc.compiler.ops.average_pool2d import AveragePool2D
from mdlc.compiler.ops.quantized_add import check_bytes
from mdlc.compiler.types import Array, DType, TensorType
from mdlc.compiler.window import Window, infer_pool


@dataclass(frozen=True)
class QuantizedAveragePool2D(Op):
    """y = clip(rescale(sum(x - x_zero), multiplier, shift) + y_zero, low, high).

    The multiplier of a window is fixed_point(scale / count), its count that of AveragePool2D; a
    global average pool has one window of the image's size.

    Attributes:
        window, include_pad: as of AveragePool2D.
        scale: the input's scale divided by the output's.
        x_zero, y_zero: zero points. low, high: bounds of the output.
        dtype: of the output, i8 or u8.
    """

    window: Window
    scale: float
    include_pad: bool = False
    x_zero: int = 0
    y_zero: int = 0
    low: int = -128
    high: int = 127
    dtype: DType = DType.I8

    layout_rule: ClassVar[LayoutRule] = LayoutRule.NATIVE
    channelwise: ClassVar[bool] = True

    def infer(self, *inputs: TensorType) -> TensorType:
        check_bytes("QuantizedAveragePool2D", self.dtype, *inputs)
        fixed_point(self.scale)
        return infer_pool(self.window, inputs[0]).with_dtype(self.dtype)

    def counts(self, size: Sequence[int]) -> Array:
        """Elements in the mean of each window [OH, OW], for an input of [H, W]."""
        return AveragePool2D(self.window, self.include_pad).counts(size)

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0].astype(np.int64) - self.x_zero
        total = self.window.patches(x, 0).sum((4, 5))
        value = rescale(total, *fixed_point(self.scale / self.counts(x.shape[2:])))
        return saturate(value + self.y_zero, self.low, self.high, self.dtype)

    def cost(self, inputs: Sequence[TensorType], output: TensorType) -> Cost:
        return Cost(0, inputs[0].nbytes + output.nbytes)

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        def sample(label: str, op: QuantizedAveragePool2D, *shape: int) -> Sample:
            kind = np.uint8 if op.dtype is DType.U8 else np.int8
            rng, (low, high) = np.random.default_rng(len(label)), limits(op.dtype)
            return Sample(op, (rng.integers(low, high, shape, kind, endpoint=True),), label=label)

        padded = Window((3, 3), (2, 2), (1, 1, 1, 1))
        return (
            sample("global", cls(Window((7, 7)), 1.7, False, -5, 4), 1, 40, 7, 7),
            sample("2x2", cls(Window((2, 2), (2, 2)), 1.0), 2, 19, 9, 11),
            sample("exclude", cls(padded, 0.8, False, 9, -3), 2, 19, 9, 11),
            sample("include", cls(padded, 1.2, True, 9, -128, -128, 80), 1, 21, 9, 11),
            sample("ceil", cls(Window((3, 2), (3, 2), ceil_mode=True), 1.0), 1, 19, 9, 11),
            sample("u8", cls(Window((4, 4)), 1.5, False, 100, 9, 9, 255, DType.U8), 1, 33, 4, 4),
        )  # fmt: skip
