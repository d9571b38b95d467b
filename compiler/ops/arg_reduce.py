"""ArgReduce: where the largest or smallest value along an axis is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import LayoutRule, OnnxForm, Op, Sample, normalize_axis, random_array
from mdlc.compiler.types import Array, DType, TensorType


@dataclass(frozen=True)
class ArgReduce(Op):
    """The index (int64) of the extreme value along `axis`, the first or the last of equals.

    Sources: ONNX specification, operators ArgMax and ArgMin.
    """

    kind: str
    axis: int
    keepdims: bool = True
    last: bool = False

    onnx: ClassVar[tuple[str, ...]] = ("ArgMax", "ArgMin")
    layout_rule: ClassVar[LayoutRule] = LayoutRule.FOLLOWS

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x = n.input(0)
        axis = normalize_axis(n.attr("axis", 0), len(x.shape))
        kind = "max" if n.op_type == "ArgMax" else "min"
        last = bool(n.attr("select_last_index", 0))
        return n.make(cls(kind, axis, bool(n.attr("keepdims", 1)), last), x)

    def infer(self, *inputs: TensorType) -> TensorType:
        shape = list(inputs[0].shape)
        shape[self.axis : self.axis + 1] = [1] if self.keepdims else []
        return TensorType(tuple(shape), DType.I64)

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0]
        find = np.argmax if self.kind == "max" else np.argmin
        if self.last:
            y = x.shape[self.axis] - 1 - find(np.flip(x, self.axis), axis=self.axis)
        else:
            y = find(x, axis=self.axis)
        y = np.expand_dims(y, self.axis) if self.keepdims else y
        return np.asarray(y, np.int64)

    def follows(self, inputs: Sequence[TensorType], index: int, axis: int) -> int | None:
        if axis == self.axis:
            return None
        return axis if self.keepdims or axis < self.axis else axis - 1

    def ignores(self, inputs: Sequence[TensorType], index: int, axis: int) -> float | None:
        # The last of equal ones could be one of those.
        return None if self.last else -math.inf if self.kind == "max" else math.inf

    def to_onnx(self) -> OnnxForm:
        attributes = {
            "axis": self.axis,
            "keepdims": int(self.keepdims),
            "select_last_index": int(self.last),
        }
        return f"Arg{self.kind.title()}", attributes, ()

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = np.round(random_array(1, 2, 21, 3, 4, low=-9, high=9))
        return (
            Sample(cls("max", 1), (x,), label="channels"),
            Sample(cls("min", 1, False), (x,), label="min"),
            Sample(cls("max", 3, False, True), (x,), label="last"),
            Sample(cls("max", 0), (x,), label="batch"),
        )
