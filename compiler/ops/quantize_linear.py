"""QuantizeLinear: floats to integers of up to 16 bits, or to floats of up to 8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.fixed_point import limits
from mdlc.compiler.ir import Node, make
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import LayoutRule, OnnxForm, Op, Sample, normalize_axis, random_array
from mdlc.compiler.ops.cast import Cast, cast_to
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.small_floats import SMALL_FLOATS
from mdlc.compiler.types import Array, DType, TensorType

FEW_BITS = (DType.I4, DType.U4, DType.I2, DType.U2)
QUANTIZED = (DType.I8, DType.U8, DType.I16, DType.U16, *FEW_BITS)
# What else tensors are quantised to: a division and a rounding.
FLOATS = tuple(each for each in SMALL_FLOATS if each is not DType.BF16)
# Their zero points only say the type.
EIGHT_BIT_FLOATS = tuple(each for each in FLOATS if each.bits == 8)


@dataclass(frozen=True)
class QuantizeLinear(Op):
    """y = saturate(round_half_even(x / scale) + zero_point), in the zero point's type.

    Inputs: x, scale and zero_point: both [], or [C] along `axis`, or for blocks of `block` along
    `axis`, with the other axes of x. The division is a division, so that results are ONNX
    Runtime's; a NaN becomes the lowest integer.

    Attributes:
        saturate: of 8-bit floats, whether what is too large becomes the largest finite number.

    Source: ONNX specification, operator QuantizeLinear.
    """

    axis: int = 1
    block: int = 0
    saturate: bool = True

    onnx: ClassVar[tuple[str, ...]] = ("QuantizeLinear", "com.microsoft.QuantizeLinear")
    layout_rule: ClassVar[LayoutRule] = LayoutRule.FOLLOWS
    channelwise: ClassVar[bool] = False

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x, scale = in_float(n, n.input(0)), in_float(n, n.input(1))
        zero = n.optional(2)
        if zero is None:
            kind = np.dtype(np.uint8)
            if n.attr("output_dtype", 0):
                kind = onnx.helper.tensor_dtype_to_np_dtype(n.attr("output_dtype"))
            zero = constant(np.zeros(scale.shape, kind))
        axis, block = linear_axis(n, x, scale)
        saturate = zero.type.dtype not in FLOATS or bool(n.attr("saturate", 1))
        return n.make(cls(axis, block, saturate), x, *one_scale(scale, zero))

    def infer(self, *inputs: TensorType) -> TensorType:
        x, scale, zero = inputs
        check_linear("QuantizeLinear", self.axis, self.block, x, scale, zero)
        if zero.dtype not in (*QUANTIZED, *FLOATS):
            raise MdlcError(f"QuantizeLinear to {zero.dtype.value} is not supported",
                            hint="up to 16 bits are")  # fmt: skip
        return TensorType(x.shape, zero.dtype)

    def reference(self, *inputs: Array) -> Array:
        x, scale, zero = inputs
        dtype = DType.from_numpy(zero.dtype)
        scale, zero = (along(v, x.shape, self.axis, self.block) for v in (scale, zero))
        if dtype in FLOATS:
            with np.errstate(all="ignore"):
                value = np.asarray(x / scale, np.float32)
                if dtype not in EIGHT_BIT_FLOATS:
                    value = value + zero.astype(np.float32)
            return cast_to(value, dtype, self.saturate)
        low, high = limits(dtype)
        offset = zero.astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            steps = np.asarray(x / scale, np.float32)
        steps = np.where(np.isnan(steps), np.float32(-np.inf), steps)
        steps = np.rint(np.clip(steps, low - offset, high - offset))
        return np.asarray(steps + offset).astype(np.int32).astype(zero.dtype)

    def to_onnx(self) -> OnnxForm:
        more = {"block_size": self.block} if self.block else {}
        return "QuantizeLinear", {"axis": self.axis, **more}, ()

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = random_array(1, 2, 5, 3, 37, low=-2.0, high=2.0)
        x[0, 0, 0, :6] = [0.0, 1e9, -1e9, 0.125, 0.375, -0.125]
        scales = random_array(2, 5, low=0.005, high=0.03)
        found = [
            Sample(cls(), (x, np.float32(step) + np.zeros((), np.float32), zero), (1, 2), label)
            for label, step, zero in (
                ("i8", 0.0123, np.array(3, np.int8)),
                ("i8_halves", 0.25, np.array(-128, np.int8)),
                ("u8", 0.0123, np.array(128, np.uint8)),
                ("i16", 0.0001, np.array(0, np.int16)),
            )
        ]
        found.append(Sample(cls(), (x, scales, np.zeros(5, np.int8)), (1, 2), "channels"))
        zeros = np.array([0, 1, 2, 250, 128], np.uint8)
        found.append(Sample(cls(), (x, scales, zeros), (1, 2), "channels_u8"))
        found.append(Sample(cls(), (x, scales, zeros), (), "channels_at_run_time"))
        one = np.array(0.0123, np.float32), np.array(7, np.uint8)
        found.append(Sample(cls(), (x, *one), (2,), "scale_at_run_time"))
        blocks = random_array(3, 2, 5, 3, 8, low=0.005, high=0.03)
        found.append(
            Sample(cls(3, 5), (x, blocks, np.zeros(blocks.shape, np.int16)), (1, 2), "blocks")
        )
        return tuple(found)


def along(values: Array, shape: tuple[int, ...], axis: int, block: int) -> Array:
    """Scales or zero points as an array that broadcasts to a tensor's shape."""
    if values.ndim == 0:
        return values
    if block:
        return np.take(np.repeat(values, block, axis), np.arange(shape[axis]), axis)
    spread = [1] * len(shape)
    spread[axis] = values.size
    return values.reshape(spread)


def linear_axis(n: OnnxNode, x: Node, scale: Node) -> tuple[int, int]:
    """The axis of an ONNX node's scales, and the length of their blocks (0 for none)."""
    if scale.type.size == 1:
        return 1, 0
    block = n.attr("block_size", 0)
    if block < 0:
        raise n.error(f"a block of {block}")
    return normalize_axis(n.attr("axis", 1), len(x.shape)), block


def in_float(n: OnnxNode, value: Node) -> Node:
    """A tensor or scale in float32, in which quantisation computes."""
    return value if value.type.dtype is DType.F32 else n.make(Cast(DType.F32), value)


def one_scale(scale: Node, zero: Node) -> tuple[Node, Node]:
    """Scales and zero points of one element as scalars."""

    def single(value: Node) -> Node:
        if value.type.size != 1 or value.shape == ():
            return value
        if value.constant is not None:
            return constant(value.constant.reshape(()), value.name)
        return make(Reshape(()), value, name=value.name)

    return single(scale), single(zero)


def check_linear(
    name: str, axis: int, block: int, x: TensorType, scale: TensorType, zero: TensorType
) -> None:
    """Raises MdlcError unless scale and zero point are scalars or fit the axis of x."""
    if scale.dtype is not DType.F32:
        raise MdlcError(f"{name} needs scales of f32, not {scale}")
    fits = scale.shape == () or (
        scale.rank == 1 and axis < x.rank and scale.shape[0] == x.shape[axis]
    )
    if block and scale.shape != ():
        blocks = list(x.shape)
        blocks[axis] = -(-blocks[axis] // block)
        fits = scale.shape == tuple(blocks)
    if not fits or zero.shape != scale.shape:
        raise MdlcError(
            f"{name}: scale {scale} and zero point {zero} do not fit axis {axis} of {x}"
        )
