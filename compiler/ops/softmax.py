"""Softmax and LogSoftmax along one axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Cost, LayoutRule, OnnxForm, Op, Sample, normalize_axis, random_array
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.types import Array, TensorType
from mdlc.compiler.values import MARGIN, Values, values


@dataclass(frozen=True)
class Softmax(Op):
    """y = exp(x - max) / sum(exp(x - max)) along `axis`, or its logarithm.

    Sources: ONNX specification, operators Softmax and LogSoftmax (before opset 13 over all axes
    from `axis` on).
    """

    axis: int
    log: bool = False

    onnx: ClassVar[tuple[str, ...]] = ("Softmax", "LogSoftmax")
    layout_rule: ClassVar[LayoutRule] = LayoutRule.FOLLOWS

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x = n.input(0)
        log = n.op_type == "LogSoftmax"
        rank = len(x.shape)
        axis = normalize_axis(n.attr("axis", -1 if n.opset >= 13 else 1), max(rank, 1))
        if n.opset >= 13 or math.prod(x.shape[axis:]) == x.shape[axis]:
            return n.make(cls(axis, log), x)
        rows = n.make(Reshape((math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))), x)
        return n.make(Reshape(x.shape), n.make(cls(1, log), rows))

    def infer(self, *inputs: TensorType) -> TensorType:
        return TensorType(inputs[0].shape, inputs[0].dtype)

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0].astype(np.float64)
        shifted = x - x.max(self.axis, keepdims=True)
        total = np.exp(shifted).sum(self.axis, keepdims=True)
        y = shifted - np.log(total) if self.log else np.exp(shifted) / total
        return np.asarray(y, inputs[0].dtype)

    def follows(self, inputs: Sequence[TensorType], index: int, axis: int) -> int | None:
        return axis if axis != self.axis else None

    def cost(self, inputs: Sequence[TensorType], output: TensorType) -> Cost:
        return Cost(output.size * 12, inputs[0].nbytes + output.nbytes)

    def value_bounds(self, node: Node, inputs: Sequence[Values]) -> Values:
        return super().value_bounds(node, inputs) if self.log else values(1.0, 0.0, 1 / MARGIN)

    def to_onnx(self) -> OnnxForm:
        return "LogSoftmax" if self.log else "Softmax", {"axis": self.axis}, ()

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = random_array(1, 2, 21, 3, 5, low=-20, high=20)
        return (
            Sample(cls(1), (x,), label="channels"),
            Sample(cls(3), (x,), label="last"),
            Sample(cls(1), (random_array(2, 1, 1001, low=-9, high=9),), label="classes"),
            Sample(cls(1, True), (random_array(3, 3, 10),), label="log"),
        )
