"""BitCast: the same bits read as another element type of the same width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.onnx_tensors import element_type
from mdlc.compiler.op import LayoutRule, Op, Sample, random_array
from mdlc.compiler.types import Array, DType, TensorType


@dataclass(frozen=True)
class BitCast(Op):
    """y has the bits of x, as elements of `dtype`.

    Source: ONNX specification, operator BitCast.
    """

    dtype: DType

    onnx: ClassVar[tuple[str, ...]] = ("BitCast",)
    layout_rule: ClassVar[LayoutRule] = LayoutRule.FOLLOWS
    channelwise: ClassVar[bool] = True

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x, dtype = n.input(0), element_type(n.attr("to", 0), n.name)
        return x if x.type.dtype is dtype else n.make(cls(dtype), x)

    def infer(self, *inputs: TensorType) -> TensorType:
        x = inputs[0]
        if x.dtype.bits != self.dtype.bits:
            raise MdlcError(f"elements of {x.dtype.value} do not have {self.dtype.bits} bits")
        return TensorType(x.shape, self.dtype)

    def reference(self, *inputs: Array) -> Array:
        return np.ascontiguousarray(inputs[0]).view(self.dtype.numpy).reshape(inputs[0].shape)

    def is_identity(self, x: TensorType) -> bool:
        return x.dtype is self.dtype

    def moves(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return (0,) if inputs[0].dtype is self.dtype else ()

    def __str__(self) -> str:
        return f"BitCast(dtype={self.dtype.value!r})"

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        return (
            Sample(cls(DType.F32), (random_array(1, 2, 3, 5, 7).view(np.int32),), (), "i32_f32"),
            Sample(cls(DType.U8), (np.arange(-60, 60, dtype=np.int8).reshape(2, 60),), (), "i8_u8"),
            Sample(cls(DType.F64), (np.arange(9, dtype=np.int64) << 60,), label="i64_f64"),
        )
