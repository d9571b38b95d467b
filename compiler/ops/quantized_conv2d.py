"""QuantizedConv2D: convolution of 8-bit integers, rescaled in fixed point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.fixed_point import fixed_point, limits, rescale, saturate
from mdlc.compiler.op import Cost, LayoutRule, Op, Sample
from mdlc.compiler.ops.quantized_add import QuantizedAdd
from mdlc.compiler.types import Array, DType, TensorType
from mdlc.compiler.window import Window, filtered


@dataclass(frozen=True)
class QuantizedConv2D(Op):
    """y = clip(rescale(b + sum(x * w), multiplier, shift) + y_zero, low, high).

    Inputs: x [N, C, H, W] i8 or u8, w [M, C/groups, kH, kW] i8, and [M] of i32 each: b (the bias
    in units of the accumulator, less x_zero times the sum of the filter's weights), multiplier
    and shift. Where `dtype` is i32, the accumulators themselves are the output: there are neither
    multiplier nor shift, and y_zero, low and high mean nothing. With an `addition`, a last input
    of the output's shape, i8 or u8, is added to the result: the output is addition(y, it).

    Attributes:
        stride, pads, dilation, groups: as of Conv2D.
        x_zero: what padding holds. y_zero: the output's zero point.
        low, high: bounds of the output; a fused Relu or Clip narrows them.
        dtype: of the output before the addition: i8, u8 or i32.
        addition: the sum with the last input, whose a_zero is y_zero; not for i32.

    See compiler/fixed_point.py for `rescale`; accumulators must fit 32 bits.
    """

    stride: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    x_zero: int = 0
    y_zero: int = 0
    low: int = -128
    high: int = 127
    dtype: DType = DType.I8
    addition: QuantizedAdd | None = None

    layout_rule: ClassVar[LayoutRule] = LayoutRule.NATIVE

    @property
    def operands(self) -> int:
        """Number of inputs, but for the one that is added."""
        return 3 if self.dtype is DType.I32 else 5

    def window(self, kernel: Sequence[int]) -> Window:
        """The sliding window for a filter of [kH, kW]."""
        return Window((kernel[0], kernel[1]), self.stride, self.pads, self.dilation)

    def infer(self, *inputs: TensorType) -> TensorType:
        check_operands("QuantizedConv2D", self, inputs[:-1] if self.addition else inputs)
        x, w = inputs[:2]
        if x.rank != 4 or w.rank != 4:
            raise MdlcError(f"QuantizedConv2D needs rank-4 input and filter, not {x} and {w}")
        batch, channels, height, width = x.shape
        filters, per_group, *kernel = w.shape
        if channels != per_group * self.groups or filters % self.groups:
            raise MdlcError(
                f"{channels} input channels do not fit a filter of shape {list(w.shape)} "
                f"in {self.groups} groups"
            )
        out = self.window(kernel).output_size((height, width))
        result = TensorType((batch, filters, *out), self.dtype)
        if self.addition is None:
            return result
        if self.addition.a_zero != self.y_zero:
            raise MdlcError(f"QuantizedConv2D adds {self.addition} to integers of another zero")
        return self.addition.infer(result, inputs[-1])

    def reference(self, *inputs: Array) -> Array:
        x, w, b = inputs[:3]
        # Sums below 2^53 are exact in float64, where BLAS is fast.
        patches = self.window(w.shape[2:]).patches(x.astype(np.float64), self.x_zero)
        y = filtered(patches, w.astype(np.float64), self.groups)
        total = y.astype(np.int64) + b[:, None, None]
        scales = (v[:, None, None] for v in inputs[3 : self.operands])
        result = finish(self, total, *scales)
        return self.addition.reference(result, inputs[-1]) if self.addition else result

    def cost(self, inputs: Sequence[TensorType], output: TensorType) -> Cost:
        _, per_group, kh, kw = inputs[1].shape
        return Cost(
            output.size * per_group * kh * kw, sum(t.nbytes for t in inputs) + output.nbytes
        )

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        def sample(
            label: str, op: QuantizedConv2D, x: tuple[int, ...], w: tuple[int, ...],
            kind: type[np.integer] = np.int8,
        ) -> Sample:  # fmt: skip
            return quantized_sample(label, op, x, w, kind, int(np.prod(w[1:])))

        def added(
            label: str, op: QuantizedConv2D, x: tuple[int, ...], w: tuple[int, ...],
            kind: type[np.integer] = np.int8, other: type[np.integer] = np.int8,
        ) -> Sample:  # fmt: skip
            bare = sample(f"added_{label}", op, x, w, kind)
            assert op.addition is not None
            shape = replace(op, addition=None).reference(*bare.inputs).shape
            rng = np.random.default_rng(len(label))
            low, high = limits(DType.from_numpy(np.dtype(other)))
            values = rng.integers(low, high, shape, other, endpoint=True)
            return replace(bare, inputs=(*bare.inputs, values))

        relu: dict[str, Any] = {"y_zero": -128, "low": -128}
        relu6: dict[str, Any] = {"x_zero": -128, "y_zero": -128, "high": 90}
        u8: dict[str, Any] = {"x_zero": 131, "y_zero": 7, "low": 7, "high": 255, "dtype": DType.U8}
        raw: dict[str, Any] = {"x_zero": 5, "dtype": DType.I32}
        same = (1, 1, 1, 1)
        # Sums: of the same step, with bounds, of steps far apart, of and to unsigned bytes.
        plain: dict[str, Any] = {"addition": QuantizedAdd(0.5, 0.5)}
        behind_relu: dict[str, Any] = {
            "y_zero": 5,
            "addition": QuantizedAdd(0.9, 1.7, 5, -128, -128, -128, 100),
        }
        tiny: dict[str, Any] = {
            "y_zero": -9,
            "low": -60,
            "high": 90,
            "addition": QuantizedAdd(2e-3, 0.01, -9, 4, 7),
        }
        to_u8: dict[str, Any] = {
            "x_zero": 131,
            "y_zero": 120,
            "low": 0,
            "high": 255,
            "dtype": DType.U8,
            "addition": QuantizedAdd(0.8, 0.6, 120, 130, 3, 3, 255, DType.U8),
        }
        mixed: dict[str, Any] = {
            "y_zero": -3,
            "addition": QuantizedAdd(0.31, 0.77, -3, 128, 99, 10, 200, DType.U8),
        }
        return (
            sample("1x1", cls(), (1, 16, 7, 7), (32, 16, 1, 1)),
            sample("1x1_deep", cls(x_zero=-3, **relu), (1, 144, 7, 9), (24, 144, 1, 1)),
            sample("1x1_awkward", cls(x_zero=9, y_zero=-5), (1, 13, 5, 9), (37, 13, 1, 1)),
            sample("1x1_stride2", cls((2, 2), **relu6), (1, 24, 9, 7), (20, 24, 1, 1)),
            sample("1x1_batch", cls(x_zero=4), (3, 8, 5, 5), (12, 8, 1, 1)),
            sample("1x1_pixel", cls(), (1, 40, 1, 1), (70, 40, 1, 1)),
            sample("1x1_wide", cls(**relu), (1, 64, 14, 14), (96, 64, 1, 1)),
            sample("1x1_u8", cls(**u8), (1, 32, 6, 6), (40, 32, 1, 1), np.uint8),
            sample("3x3", cls(pads=same, x_zero=11), (1, 8, 10, 12), (16, 8, 3, 3)),
            sample("3x3_deep", cls(pads=same, **relu6), (2, 16, 9, 13), (32, 16, 3, 3)),
            sample("3x3_first", cls((2, 2), (0, 0, 1, 1), **relu6), (1, 3, 32, 32), (24, 3, 3, 3)),
            sample("3x3_first_u8", cls((2, 2), same, **u8), (1, 3, 31, 30), (32, 3, 3, 3),
                   np.uint8),
            sample("5x3_uneven", cls((2, 1), (2, 0, 1, 1), x_zero=-9), (1, 6, 11, 9),
                   (10, 6, 5, 3)),
            sample("7x7_stride2", cls((2, 2), (3, 3, 3, 3), x_zero=2), (1, 3, 20, 22),
                   (16, 3, 7, 7)),
            sample("dilated", cls(pads=(2, 2, 2, 2), dilation=(2, 2), x_zero=1), (1, 8, 9, 9),
                   (9, 8, 3, 3)),
            sample("grouped", cls(pads=same, groups=3), (1, 12, 8, 8), (18, 4, 3, 3)),
            sample("grouped_1x1", cls(groups=4), (1, 32, 6, 5), (64, 8, 1, 1)),
            sample("row", cls(pads=(0, 2, 0, 2), x_zero=50), (2, 10, 1, 17), (6, 10, 1, 5)),
            sample("raw", cls(pads=same, **raw), (1, 12, 6, 7), (21, 12, 3, 3)),
            sample("raw_u8", cls(x_zero=5, dtype=DType.I32), (1, 20, 4, 5), (9, 20, 1, 1),
                   np.uint8),
            sample("depthwise", cls(pads=same, groups=24, **relu6), (1, 24, 8, 9), (24, 1, 3, 3)),
            sample("depthwise_stride2", cls((2, 2), (0, 0, 1, 1), groups=19, **relu6),
                   (1, 19, 12, 14), (19, 1, 3, 3)),
            sample("depthwise_wide", cls((2, 2), same, groups=96, x_zero=-20, **relu),
                   (1, 96, 9, 9), (96, 1, 3, 3)),
            sample("depthwise_u8", cls(pads=same, groups=40, **u8), (1, 40, 7, 5), (40, 1, 3, 3),
                   np.uint8),
            sample("depthwise_5x5", cls((1, 1), (2, 2, 2, 2), groups=32, x_zero=3), (2, 32, 7, 7),
                   (32, 1, 5, 5)),
            sample("depthwise_dilated", cls((1, 1), (4, 4, 4, 4), (4, 4), groups=16),
                   (1, 16, 12, 12), (16, 1, 3, 3)),
            sample("depthwise_multiplier", cls(pads=same, groups=6, x_zero=8), (1, 6, 7, 8),
                   (12, 1, 3, 3)),
            sample("depthwise_raw", cls(pads=same, groups=18, **raw), (1, 18, 5, 6),
                   (18, 1, 3, 3)),
            added("plain", cls(**plain), (1, 24, 7, 9), (64, 24, 1, 1)),
            added("relu", cls(x_zero=7, **behind_relu), (2, 40, 5, 6), (37, 40, 1, 1)),
            added("3x3", cls(pads=same, x_zero=11, **behind_relu), (1, 8, 10, 12), (21, 8, 3, 3)),
            added("tiny", cls((2, 2), **tiny), (1, 16, 9, 9), (34, 16, 1, 1)),
            added("u8", cls(pads=same, **to_u8), (1, 12, 6, 7), (40, 12, 3, 3), np.uint8,
                  np.uint8),
            added("mixed_awkward", cls(**mixed), (1, 20, 4, 5), (19, 20, 1, 1), other=np.uint8),
            added("grouped", cls(pads=same, groups=3, **plain), (1, 12, 8, 8), (60, 4, 3, 3)),
        )  # fmt: skip


def check_operands(name: str, op: object, inputs: Sequence[TensorType]) -> None:
    """Raises MdlcError unless number and types of a quantised product's inputs fit."""
    dtype, operands = getattr(op, "dtype", None), getattr(op, "operands", 0)
    if dtype not in (DType.I8, DType.U8, DType.I32):
        raise MdlcError(f"{name} gives i8, u8 or i32, not {dtype}")
    if len(inputs) != operands:
        raise MdlcError(f"{name} takes {operands} inputs, not {len(inputs)}")
    x, w = inputs[:2]
    if x.dtype not in (DType.I8, DType.U8) or w.dtype is not DType.I8:
        raise MdlcError(f"{name} needs an input of i8 or u8 and weights of i8, not {x} and {w}")
    for each in inputs[2:]:
        if each.dtype is not DType.I32 or each.shape != w.shape[:1]:
            raise MdlcError(f"{name} needs i32[{w.shape[0]}] for each output channel, not {each}")


def finish(op: object, total: Array, *scales: Array) -> Array:
    """Accumulators (int64) made the output of a QuantizedConv2D or QuantizedDense."""
    dtype: DType = op.dtype  # type: ignore[attr-defined]
    if dtype is DType.I32:
        return total.astype(np.int32)
    value = rescale(total, *scales) + op.y_zero  # type: ignore[attr-defined]
    return saturate(value, op.low, op.high, dtype)  # type: ignore[attr-defined]


def quantized_sample(
    label: str, op: Op, x: tuple[int, ...], w: tuple[int, ...], kind: type[np.integer], depth: int
) -> Sample:
    """A sample of a quantised product: all values of x and w, factors that use the whole range."""
    rng = np.random.default_rng(len(label) + 7 * depth)
    low, high = limits(DType.from_numpy(kind))
    zero: int = op.x_zero  # type: ignore[attr-defined]
    values = rng.integers(low, high, x, kind, endpoint=True)
    weights = rng.integers(-127, 127, w, np.int8, endpoint=True)
    weights.flat[:2] = -128, 127
    bias = rng.integers(-3000, 3000, w[0]) - zero * weights.reshape(w[0], -1).sum(1, np.int64)
    inputs = [values, weights, bias.astype(np.int32)]
    if getattr(op, "dtype", None) is not DType.I32:
        # The standard deviation of the sums becomes some 60 steps; one factor is far off.
        scale = rng.uniform(0.5, 1.5, w[0]) * 60 / (np.sqrt(depth) * 74 * 73)
        scale[0] = 0.4
        if label.endswith("awkward"):
            scale[1:4] = 3.7, 0.5, 1e-12
        inputs += fixed_point(scale)
    return Sample(op, tuple(inputs), tuple(range(1, len(inputs))), label)
