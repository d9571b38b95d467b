"""CumSum and CumProd: running sums and products along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Cost, LayoutRule, OnnxForm, Op, Sample, normalize_axis, random_array
from mdlc.compiler.types import Array, TensorType


@dataclass(frozen=True)
class CumSum(Op):
    """y[i] = x[0] + ... + x[i] along `axis`, or x[0] * ... * x[i].

    Attributes:
        exclusive: without x[i] itself. reverse: from the last element down.
        product: products instead of sums.

    Sources: ONNX specification, operators CumSum and CumProd.
    """

    axis: int
    exclusive: bool = False
    reverse: bool = False
    product: bool = False

    onnx: ClassVar[tuple[str, ...]] = ("CumSum", "CumProd")
    layout_rule: ClassVar[LayoutRule] = LayoutRule.FOLLOWS

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x, axis = n.input(0), n.const(1)
        if axis.size != 1:
            raise n.error(f"axis has {axis.size} elements, not one")
        return n.make(
            cls(
                normalize_axis(int(axis.item()), len(x.shape)),
                bool(n.attr("exclusive", 0)),
                bool(n.attr("reverse", 0)),
                n.op_type == "CumProd",
            ),
            x,
        )

    def infer(self, *inputs: TensorType) -> TensorType:
        if not 0 <= self.axis < inputs[0].rank:
            raise MdlcError(f"axis {self.axis} is outside a tensor of rank {inputs[0].rank}")
        return TensorType(inputs[0].shape, inputs[0].dtype)

    def channel_map(
        self, inputs: Sequence[TensorType], output: TensorType
    ) -> tuple[Array | None, ...] | None:
        alone = output.rank > 1 and self.axis != 1
        return (np.arange(output.shape[1]),) if alone else None

    def reference(self, *inputs: Array) -> Array:
        x = np.flip(inputs[0], self.axis) if self.reverse else inputs[0]
        wide = x.astype(np.float64) if x.dtype.kind == "f" else x
        y = (np.cumprod if self.product else np.cumsum)(wide, self.axis, dtype=wide.dtype)
        if self.exclusive:
            y = np.roll(y, 1, self.axis)
            first = [slice(None)] * y.ndim
            first[self.axis] = slice(0, 1)
            y[tuple(first)] = 1 if self.product else 0
        y = np.flip(y, self.axis) if self.reverse else y
        return np.ascontiguousarray(y, dtype=inputs[0].dtype)

    def cost(self, inputs: Sequence[TensorType], output: TensorType) -> Cost:
        return Cost(output.size, inputs[0].nbytes + output.nbytes)

    def to_onnx(self) -> OnnxForm | None:
        if self.product:  # newer than operator set 20
            return None
        attributes = {"exclusive": int(self.exclusive), "reverse": int(self.reverse)}
        return "CumSum", attributes, (np.array(self.axis, np.int64),)

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = random_array(1, 2, 5, 3, 7)
        whole = np.arange(-12, 12).reshape(2, 3, 4)
        return (
            Sample(cls(1), (x,), label="channels"),
            Sample(cls(1, exclusive=True, product=True), (x,), label="products"),
            Sample(cls(3, reverse=True, product=True), (x,), label="products_reverse"),
            Sample(cls(3, exclusive=True), (x,), label="exclusive"),
            Sample(cls(2, reverse=True), (x,), label="reverse"),
            Sample(cls(0, exclusive=True, reverse=True), (x,), label="batch_exclusive_reverse"),
            Sample(cls(0), (random_array(2, 9),), label="vector"),
            Sample(cls(1), (whole.astype(np.int64),), label="i64"),
            Sample(cls(2, reverse=True), (whole.astype(np.int32),), label="i32"),
        )
