"""DequantizeLinear: integers, or floats of up to 8 bits, to float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.onnx_tensors import element_type
from mdlc.compiler.op import LayoutRule, OnnxForm, Op, Sample, random_array
from mdlc.compiler.ops.cast import Cast
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.quantize_linear import (
    FLOATS,
    QUANTIZED,
    along,
    check_linear,
    in_float,
    linear_axis,
    one_scale,
)
from mdlc.compiler.types import Array, DType, TensorType
from mdlc.compiler.values import Values


@dataclass(frozen=True)
class DequantizeLinear(Op):
    """y = (x - zero_point) * scale.

    Inputs: x (up to 32 bits), scale and zero_point (of x's type): both [], or [C] along `axis`, or
    for blocks of `block` along `axis`, with the other axes of x. Constants stay as they are:
    passes/lower_quantized.py wants weights as integers, and widens those that are read in float.

    Source: ONNX specification, operator DequantizeLinear.
    """

    axis: int = 1
    block: int = 0

    onnx: ClassVar[tuple[str, ...]] = ("DequantizeLinear", "com.microsoft.DequantizeLinear")
    layout_rule: ClassVar[LayoutRule] = LayoutRule.FOLLOWS
    foldable: ClassVar[bool] = False

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x, scale = n.input(0), in_float(n, n.input(1))
        zero = n.optional(2) or constant(np.zeros(scale.shape, x.type.dtype.numpy))
        y = n.make(cls(*linear_axis(n, x, scale)), x, *one_scale(scale, zero))
        wanted = n.input(1).type.dtype
        if n.attr("output_dtype", 0):
            wanted = element_type(n.attr("output_dtype"), n.name)
        return y if wanted is DType.F32 else n.make(Cast(wanted), y)

    def infer(self, *inputs: TensorType) -> TensorType:
        x, scale, zero = inputs
        check_linear("DequantizeLinear", self.axis, self.block, x, scale, zero)
        if x.dtype not in (*QUANTIZED, *FLOATS, DType.I32) or zero.dtype is not x.dtype:
            raise MdlcError(f"DequantizeLinear of {x} with a zero point of {zero}")
        return TensorType(x.shape, DType.F32)

    def reference(self, *inputs: Array) -> Array:
        x, scale, zero = inputs
        scale, zero = (along(v, x.shape, self.axis, self.block) for v in (scale, zero))
        if DType.from_numpy(x.dtype) in FLOATS:
            with np.errstate(all="ignore"):
                return np.asarray((x.astype(np.float32) - zero.astype(np.float32)) * scale)
        steps = (x.astype(np.int64) - zero.astype(np.int64)).astype(np.int32)
        return np.asarray(steps.astype(np.float32) * scale)

    def value_bounds(self, node: Node, inputs: Sequence[Values]) -> Values:
        found = super().value_bounds(node, inputs)
        steps = inputs[0].most.max() + inputs[2].most.max()
        with np.errstate(invalid="ignore"):
            most = np.nan_to_num(steps * inputs[1].most.max(), nan=0.0, posinf=np.inf)
        return Values(most[None], found.mean, found.deviation)

    def to_onnx(self) -> OnnxForm:
        more = {"block_size": self.block} if self.block else {}
        return "DequantizeLinear", {"axis": self.axis, **more}, ()

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        rng = np.random.default_rng(1)
        shape = (2, 5, 3, 37)
        scales = random_array(2, 5, low=0.005, high=0.03)
        found = []
        for dtype, zero in ((np.int8, 3), (np.uint8, 128), (np.int16, -7)):
            info = np.iinfo(dtype)
            x = rng.integers(info.min, info.max, shape, dtype, endpoint=True)
            found.append(
                Sample(
                    cls(),
                    (x, np.array(0.0123, np.float32), np.array(zero, dtype)),
                    (1, 2),
                    np.dtype(dtype).name,
                )
            )
            if dtype is np.int8:
                found.append(Sample(cls(), (x, scales, np.zeros(5, dtype)), (1, 2), "channels"))
        wide = rng.integers(-(2**30), 2**30, shape, np.int32)
        zeros = np.zeros((), np.int32)
        found.append(Sample(cls(), (wide, np.array(1e-6, np.float32), zeros), (1, 2), "int32"))
        codes = rng.integers(0, 256, shape, np.uint8)
        one = np.array(0.0123, np.float32), np.array(7, np.uint8)
        found.append(Sample(cls(), (codes, *one), (), "scale_at_run_time"))
        found.append(
            Sample(cls(), (codes, scales, np.arange(5, dtype=np.uint8)), (), "channels_at_run_time")
        )
        blocks = random_array(3, 2, 5, 3, 8, low=0.005, high=0.03)
        found.append(
            Sample(cls(3, 5), (codes, blocks, np.full(blocks.shape, 3, np.uint8)), (), "blocks")
        )
        return tuple(found)
