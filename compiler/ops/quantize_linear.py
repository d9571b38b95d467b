"""QuantizeLinear: floats to integers of 8 or 16 bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.fixed_point import limits
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import LayoutRule, OnnxForm, Op, Sample, normalize_axis, random_array
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.types import Array, DType, TensorType

QUANTIZED = (DType.I8, DType.U8, DType.I16, DType.U16)


@dataclass(frozen=True)
class QuantizeLinear(Op):
    """y = saturate(round_half_even(x / scale) + zero_point), in the zero point's type.

    Inputs: x, scale and zero_point, both [] or [C] along `axis`. The division is a division, so
    that results are ONNX Runtime's; a NaN becomes the lowest value.

    Source: ONNX specification, operator QuantizeLinear.
    """

    axis: int = 1

    onnx: ClassVar[tuple[str, ...]] = ("QuantizeLinear",)
    layout_rule: ClassVar[LayoutRule] = LayoutRule.FOLLOWS
    channelwise: ClassVar[bool] = False

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x, scale = n.input(0), n.input(1)
        zero = n.optional(2)
        if zero is None:
            kind = np.dtype(np.uint8)
            if n.attr("output_dtype", 0):
                kind = onnx.helper.tensor_dtype_to_np_dtype(n.attr("output_dtype"))
            zero = constant(np.zeros(scale.shape, kind))
        return n.make(cls(linear_axis(n, x, scale)), x, *one_scale(scale, zero))

    def infer(self, *inputs: TensorType) -> TensorType:
        x, scale, zero = inputs
        check_linear("QuantizeLinear", self.axis, x, scale, zero)
        if zero.dtype not in QUANTIZED:
            raise MdlcError(f"QuantizeLinear to {zero.dtype.value} is not supported",
                            hint="8 and 16 bits are")  # fmt: skip
        return TensorType(x.shape, zero.dtype)

    def reference(self, *inputs: Array) -> Array:
        x, scale, zero = inputs
        low, high = limits(DType.from_numpy(zero.dtype))
        scale, zero = (along(v, x.ndim, self.axis) for v in (scale, zero))
        offset = zero.astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            steps = np.asarray(x / scale, np.float32)
        steps = np.where(np.isnan(steps), np.float32(-np.inf), steps)
        steps = np.rint(np.clip(steps, low - offset, high - offset))
        return np.asarray(steps + offset).astype(zero.dtype)

    def to_onnx(self) -> OnnxForm:
        return "QuantizeLinear", {"axis": self.axis}, ()

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
        return tuple(found)


def along(values: Array, rank: int, axis: int) -> Array:
    """Per-channel values as an array that broadcasts along an axis; a scalar as it is."""
    if values.ndim == 0:
        return values
    shape = [1] * rank
    shape[axis] = values.size
    return values.reshape(shape)


def linear_axis(n: OnnxNode, x: Node, scale: Node) -> int:
    """The axis of an ONNX node's scales."""
    if n.attr("block_size", 0):
        raise n.error("blocked quantisation is not supported", hint="quantise per axis")
    if scale.type.size == 1:
        return 1
    return normalize_axis(n.attr("axis", 1), len(x.shape))


def one_scale(scale: Node, zero: Node) -> tuple[Node, Node]:
    """Constants of one element as scalars."""
    return tuple(
        constant(v.constant.reshape(()), v.name)
        if v.constant is not None and v.type.size == 1
        else v
        for v in (scale, zero)
    )  # type: ignore[return-value]


def check_linear(name: str, axis: int, x: TensorType, scale: TensorType, zero: TensorType) -> None:
    """Raises MdlcError unless scale and zero point are scalars or fit the axis of x."""
    if scale.dtype is not DType.F32:
        raise MdlcError(f"{name} needs scales of f32, not {scale}")
    fits = scale.shape == () or (
        scale.rank == 1 and axis < x.rank and scale.shape[0] == x.shape[axis]
    )
    if not fits or zero.shape != scale.shape:
        raise MdlcError(
            f"{name}: scale {scale} and zero point {zero} do not fit axis {axis} of {x}"
        )
