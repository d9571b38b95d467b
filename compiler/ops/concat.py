"""Concat: tensors joined along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import LayoutRule, OnnxForm, Op, Sample, normalize_axis, random_array
from mdlc.compiler.types import Array, TensorType
from mdlc.compiler.values import Values


@dataclass(frozen=True)
class Concat(Op):
    """The inputs one behind the other along `axis`. Source: ONNX specification, Concat."""

    axis: int

    onnx: ClassVar[tuple[str, ...]] = ("Concat",)
    layout_rule: ClassVar[LayoutRule] = LayoutRule.FOLLOWS

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        axis = normalize_axis(n.attr("axis"), len(n.input(0).shape))
        inputs = [n.input(i) for i in range(len(n.inputs))]
        # Parts without elements add nothing.
        inputs = [x for x in inputs if x.type.size] or inputs[:1]
        if len(inputs) == 1:
            return inputs[0]
        counts = [n.counts_of(x) for x in inputs]
        if any(axis in each for each in counts):
            from mdlc.compiler.ops.span import concatenated  # it is made of operators

            return concatenated(n, inputs, [each.get(axis) for each in counts], axis)
        return n.make(cls(axis), *inputs)

    def infer(self, *inputs: TensorType) -> TensorType:
        first = inputs[0]
        shape = list(first.shape)
        for other in inputs[1:]:
            if other.dtype is not first.dtype or other.rank != first.rank:
                raise MdlcError(f"{other} does not concatenate with {first}")
            if any(a != b for i, (a, b) in enumerate(zip(first.shape, other.shape, strict=True))
                   if i != self.axis):  # fmt: skip
                raise MdlcError(f"{other} does not concatenate with {first} on axis {self.axis}")
            shape[self.axis] += other.shape[self.axis]
        return TensorType(tuple(shape), first.dtype)

    def channel_map(
        self, inputs: Sequence[TensorType], output: TensorType
    ) -> tuple[Array | None, ...] | None:
        if self.axis != 1:
            return tuple(np.arange(output.shape[1]) for _ in inputs) if output.rank > 1 else None
        maps, at = [], 0
        for source in inputs:
            own = np.full(output.shape[1], -1)
            own[at : at + source.shape[1]] = np.arange(source.shape[1])
            maps.append(own)
            at += source.shape[1]
        return tuple(maps)

    def reference(self, *inputs: Array) -> Array:
        return np.concatenate(inputs, axis=self.axis)

    def moves(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return tuple(range(len(inputs)))

    def is_identity(self, x: TensorType) -> bool:
        return True  # of one input, or the others are empty

    def value_bounds(self, node: Node, inputs: Sequence[Values]) -> Values:
        if self.axis != 1 or node.type.rank not in (2, 4):
            return super().value_bounds(node, inputs)
        parts = [v.of(s.shape[1]) for v, s in zip(inputs, node.inputs, strict=True)]
        return Values(
            np.concatenate([part.most for part in parts]),
            np.concatenate([part.mean for part in parts]),
            np.concatenate([part.deviation for part in parts]),
        )

    def constant_channels(self, node: Node, known: Sequence[Array]) -> Array:
        if self.axis != 1:
            return super().constant_channels(node, known)
        return np.concatenate(known)

    def follows(self, inputs: Sequence[TensorType], index: int, axis: int) -> int | None:
        return axis if axis != self.axis else None

    def to_onnx(self) -> OnnxForm:
        return "Concat", {"axis": self.axis}, ()

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        def values(axis: int, *lengths: int) -> tuple[Array, ...]:
            shape = [2, 5, 3, 4]
            return tuple(
                random_array(i, *shape[:axis], length, *shape[axis + 1 :])
                for i, length in enumerate(lengths)
            )

        return (
            Sample(cls(1), values(1, 4, 7, 1), label="channels"),
            Sample(cls(2), values(2, 2, 3), label="rows"),
            Sample(cls(0), values(0, 1, 2), label="batch"),
            Sample(cls(3), values(3, 16, 1), label="columns"),
            Sample(cls(0), (random_array(1, 3), random_array(2, 4)), label="vector"),
        )
