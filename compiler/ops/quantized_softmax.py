"""QuantizedSoftmax: softmax of 8-bit integers along one axis, without a float."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, localcontext
from functools import cache
from typing import ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.fixed_point import limits, saturate
from mdlc.compiler.op import Cost, LayoutRule, Op, Sample
from mdlc.compiler.ops.quantized_add import check_bytes
from mdlc.compiler.types import Array, DType, TensorType

# exp(0) is 2^31: a row's largest element alone gives its sum 31 bits.
ONE_BITS = 31
# Below it, numerators would have more than 55 bits; beyond its inverse, all results are zero.
LEAST_SCALE = 2.0**-24


@dataclass(frozen=True)
class QuantizedSoftmax(Op):
    """y = clip(floor((2 step[d] + S) / (2 S)) + y_zero, low, high), d = max(x) - x along `axis`.

    exponential[d] is exp(-d x_scale) 2^31 and step[d] is exp(-d x_scale) 2^31 / y_scale, each
    rounded to the nearest integer; S is the sum of exponential[d] along the axis, in 64 bits. So
    a result is rounded once, halves upwards. The input's zero point cancels.

    Attributes:
        axis: the axis that sums to 1.
        x_scale, y_scale: scales of the input and of the output.
        y_zero: zero point of the output.
        low, high: bounds of the output.
        dtype: of the output, i8 or u8.
    """

    axis: int
    x_scale: float
    y_scale: float
    y_zero: int = 0
    low: int = -128
    high: int = 127
    dtype: DType = DType.I8

    layout_rule: ClassVar[LayoutRule] = LayoutRule.FOLLOWS

    def infer(self, *inputs: TensorType) -> TensorType:
        check_bytes("QuantizedSoftmax", self.dtype, *inputs)
        scales = f"scales {self.x_scale:g} and {self.y_scale:g} of a softmax"
        if not (0 < self.x_scale < math.inf and LEAST_SCALE <= self.y_scale <= 1 / LEAST_SCALE):
            raise MdlcError(scales, hint="the output's must lie between 2^-24 and 2^24")
        if inputs[0].shape[self.axis] >= 1 << 31:
            raise MdlcError("QuantizedSoftmax sums at most 2^31 elements")
        return TensorType(inputs[0].shape, self.dtype)

    def tables(self) -> tuple[Array, Array]:
        """exponential (u32) and step (u64), by the distance d from the maximum, 0 to 255."""
        exponential, step = _tables(self.x_scale, self.y_scale)
        return np.array(exponential, np.uint32), np.array(step, np.uint64)

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0].astype(np.int64)
        distance = x.max(self.axis, keepdims=True) - x
        exponential, step = (table.astype(np.int64) for table in self.tables())
        total = exponential[distance].sum(self.axis, keepdims=True)
        value = (2 * step[distance] + total) // (2 * total)
        return saturate(value + self.y_zero, self.low, self.high, self.dtype)

    def cost(self, inputs: Sequence[TensorType], output: TensorType) -> Cost:
        return Cost(output.size * 4, inputs[0].nbytes + output.nbytes)

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        def sample(label: str, op: QuantizedSoftmax, *shape: int, kind: type = np.int8) -> Sample:
            rng, (low, high) = np.random.default_rng(len(label)), limits(DType.from_numpy(kind))
            x = rng.integers(low, high, shape, kind, endpoint=True)
            return Sample(op, (x,), label=label)

        unsigned = 0, 255, DType.U8
        return (
            sample("channels", cls(1, 0.02, 1 / 256, -128), 2, 21, 3, 5),
            sample("last", cls(3, 0.07, 1 / 200, 9), 1, 6, 4, 19),
            sample("rows", cls(2, 0.03, 1 / 256, -128), 1, 5, 9, 4),
            sample("classes", cls(1, 0.1, 1 / 256, -128), 2, 1001),
            sample("flat", cls(1, 1e-4, 1 / 65536, 3), 3, 1000),
            sample("bounds", cls(1, 0.04, 1 / 2000, -20, -19, 90), 5, 300),
            sample("coarse", cls(1, 0.04, 2.0, 7), 4, 3),
            sample("u8", cls(1, 0.05, 1 / 255, 4, *unsigned), 3, 10, kind=np.uint8),
            sample("u8_classes", cls(1, 0.3, 1 / 2048, 0, *unsigned), 2, 1000),
            sample("vector", cls(0, 0.05, 1 / 256, -100), 40, kind=np.uint8),
        )


@cache
def _tables(x_scale: float, y_scale: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """In decimal arithmetic, which is rounded alike everywhere, as libraries' exp is not."""
    with localcontext() as context:
        context.prec = 60
        factor, one = Decimal(x_scale), Decimal(1 << ONE_BITS)
        real = [(-distance * factor).exp() * one for distance in range(256)]

        def whole(value: Decimal) -> int:
            return int(value.to_integral_value(ROUND_HALF_UP))

        return tuple(map(whole, real)), tuple(whole(v / Decimal(y_scale)) for v in real)
