"""Expand: a tensor broadcast to a larger shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import OnnxForm, Op, Sample, broadcast_shapes, random_array
from mdlc.compiler.types import Array, TensorType


@dataclass(frozen=True)
class Expand(Op):
    """y = x broadcast to `shape`. Source: ONNX specification, operator Expand."""

    shape: tuple[int, ...]

    onnx: ClassVar[tuple[str, ...]] = ("Expand",)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x = n.input(0)
        wanted, open_axes = n.dims(1)
        y = n.make(cls(broadcast_shapes(x.shape, wanted)), x)
        if not open_axes:
            return y
        from mdlc.compiler.ops.span import opened  # it is made of operators that expand

        first = len(y.shape) - len(wanted)
        return opened(n, y, {first + axis: length for axis, length in open_axes.items()})

    def infer(self, *inputs: TensorType) -> TensorType:
        if broadcast_shapes(inputs[0].shape, self.shape) != self.shape:
            raise MdlcError(f"{inputs[0]} does not expand to {list(self.shape)}")
        return TensorType(self.shape, inputs[0].dtype)

    def reference(self, *inputs: Array) -> Array:
        return np.broadcast_to(inputs[0], self.shape).copy()

    def moves(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return (0,)

    def is_identity(self, x: TensorType) -> bool:
        return True

    def follows(self, inputs: Sequence[TensorType], index: int, axis: int) -> int | None:
        at = len(self.shape) - inputs[0].rank + axis
        return at if inputs[0].shape[axis] == self.shape[at] else None

    def to_onnx(self) -> OnnxForm:
        return "Expand", {}, (np.array(self.shape, np.int64),)

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        return (
            Sample(cls((2, 5, 3, 4)), (random_array(1, 5, 1, 1),), label="channels"),
            Sample(cls((3, 17)), (random_array(1, 1, 17),), label="rows"),
            Sample(cls((4, 6)), (random_array(1, 4, 1),), label="columns"),
        )
