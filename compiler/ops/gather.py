"""Gather: entries of one axis by index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.ir import Node, make
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import OnnxForm, Op, Sample, normalize_axis, random_array
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.types import Array, TensorType


def check_indices(
    n: OnnxNode, indices: Node, length: int, where: str, component: int | None = None
) -> None:
    """Refuses constant indices outside -length..length-1.

    Args:
        component: of indices whose last axis has one for each axis of a tensor, which.
    """
    value = indices.constant
    if value is None:
        return
    value = value if component is None else value[..., component]
    if value.size and (value.min() < -length or value.max() >= length):
        raise n.error(f"an index is outside {where}")


@dataclass(frozen=True)
class Gather(Op):
    """y = x taken along `axis` at the indices (input 1); negative indices count from the end.

    Source: ONNX specification, operator Gather.
    """

    axis: int = 0

    onnx: ClassVar[tuple[str, ...]] = ("Gather",)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x, indices = n.input(0), n.input(1)
        axis = normalize_axis(n.attr("axis", 0), len(x.shape))
        check_indices(n, indices, x.shape[axis], f"axis {axis} of {x.type}")
        return n.make(cls(axis), x, indices)

    def infer(self, *inputs: TensorType) -> TensorType:
        x, indices = inputs
        return TensorType(
            (*x.shape[: self.axis], *indices.shape, *x.shape[self.axis + 1 :]), x.dtype
        )

    def node_channel_map(self, node: Node) -> tuple[Array | None, ...] | None:
        index = node.inputs[1].constant
        if self.axis != 1 or index is None or index.ndim != 1:
            return None
        return index % node.inputs[0].shape[1], None

    def on_channels(
        self, inputs: Sequence[Node], kept: Array, kept_inputs: Sequence[Array], name: str
    ) -> Node:
        index = inputs[1].constant
        if self.axis != 1 or index is None:
            return make(self, *inputs, name=name)
        place = np.cumsum(kept_inputs[0]) - 1
        moved = place[index[kept] % len(kept_inputs[0])]
        return make(self, inputs[0], constant(moved.astype(index.dtype)), name=name)

    def reference(self, *inputs: Array) -> Array:
        return np.asarray(np.take(inputs[0], inputs[1], axis=self.axis))

    def moves(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return (0,)

    def follows(self, inputs: Sequence[TensorType], index: int, axis: int) -> int | None:
        if index == 1:
            return self.axis + axis
        if axis == self.axis:
            return None
        return axis if axis < self.axis else axis + inputs[1].rank - 1

    def to_onnx(self) -> OnnxForm:
        return "Gather", {"axis": self.axis}, ()

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = random_array(1, 3, 6, 4, 5)
        some = np.array([5, 0, -2, 3, 3], np.int64)
        grid = np.array([[0, 1], [2, -1]], np.int32)
        return (
            Sample(cls(1), (x, some), (1,), "channels"),
            Sample(cls(0), (x, grid), (1,), "grid"),
            Sample(cls(3), (x, np.array(2, np.int64)), (1,), "scalar"),
            Sample(cls(2), (x, np.array([1, -1], np.int64)), (), "runtime"),
        )
