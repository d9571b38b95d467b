"""QuantizedAdd: the sum of two 8-bit tensors of different scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.fixed_point import limits, rescale, saturate, sum_multipliers
from mdlc.compiler.op import Cost, LayoutRule, Op, Sample
from mdlc.compiler.types import Array, DType, TensorType


@dataclass(frozen=True)
class QuantizedAdd(Op):
    """y = clip(floor(((a - a_zero) ma + (b - b_zero) mb + 2^(n - 1)) / 2^n) + y_zero, low, high).

    Inputs: a and b, i8 or u8, of one shape. ma, mb and n are
    fixed_point.sum_multipliers(a_scale, b_scale).

    Attributes:
        a_scale, b_scale: an input's scale divided by the output's.
        a_zero, b_zero, y_zero: zero points.
        low, high: bounds of the output; a fused Relu or Clip narrows them.
        dtype: of the output, i8 or u8.
    """

    a_scale: float
    b_scale: float
    a_zero: int = 0
    b_zero: int = 0
    y_zero: int = 0
    low: int = -128
    high: int = 127
    dtype: DType = DType.I8

    layout_rule: ClassVar[LayoutRule] = LayoutRule.FOLLOWS
    channelwise: ClassVar[bool] = True

    def turned(self) -> QuantizedAdd:
        """The same sum of b and a."""
        return replace(
            self, a_scale=self.b_scale, b_scale=self.a_scale, a_zero=self.b_zero, b_zero=self.a_zero
        )

    def infer(self, *inputs: TensorType) -> TensorType:
        if len(inputs) != 2 or inputs[0].shape != inputs[1].shape:
            listed = " and ".join(map(str, inputs))
            raise MdlcError(f"QuantizedAdd needs two inputs of one shape, not {listed}")
        check_bytes("QuantizedAdd", self.dtype, *inputs)
        sum_multipliers(self.a_scale, self.b_scale)
        return TensorType(inputs[0].shape, self.dtype)

    def reference(self, *inputs: Array) -> Array:
        a, b = (x.astype(np.int64) for x in inputs)
        ma, mb, shift = sum_multipliers(self.a_scale, self.b_scale)
        total = (a - self.a_zero) * ma + (b - self.b_zero) * mb
        return saturate(rescale(total, 1, shift) + self.y_zero, self.low, self.high, self.dtype)

    def cost(self, inputs: Sequence[TensorType], output: TensorType) -> Cost:
        return Cost(output.size, sum(t.nbytes for t in inputs) + output.nbytes)

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        def sample(label: str, op: QuantizedAdd, *shape: int) -> Sample:
            kind = np.uint8 if op.dtype is DType.U8 else np.int8
            rng, (low, high) = np.random.default_rng(len(label)), limits(op.dtype)
            a, b = (rng.integers(low, high, shape, kind, endpoint=True) for _ in range(2))
            return Sample(op, (a, b), label=label)

        return (
            sample("equal", cls(0.5, 0.5), 1, 24, 7, 9),
            sample("zeros", cls(0.7, 1.3, 5, -9, 3), 2, 5, 3, 7),
            sample("relu", cls(1.9, 0.01, 100, -128, -128, -128, 60), 3, 67),
            sample("tiny", cls(1e-5, 3e-4, 1, 2, 3), 130),
            sample("u8", cls(0.31, 0.77, 128, 3, 120, 0, 255, DType.U8), 1, 16, 5, 5),
        )


def check_bytes(name: str, dtype: DType, *inputs: TensorType) -> None:
    """Raises MdlcError unless the inputs and the output are i8 or u8."""
    for kind in (dtype, *(x.dtype for x in inputs)):
        if kind not in (DType.I8, DType.U8):
            raise MdlcError(f"{name} is for i8 and u8, not {kind.value}")
