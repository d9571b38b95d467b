"""GatherElements: for every index, the entry at its own place but along one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import OnnxForm, Op, Sample, normalize_axis, random_array
from mdlc.compiler.ops.gather import check_indices
from mdlc.compiler.types import Array, TensorType


@dataclass(frozen=True)
class GatherElements(Op):
    """y[i, j, k] = x[index[i, j, k], j, k] for axis 0, and likewise for others.

    Negative indices count from the end; on the device, those outside are the nearest inside.

    Source: ONNX specification, operator GatherElements.
    """

    axis: int = 0

    onnx: ClassVar[tuple[str, ...]] = ("GatherElements",)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x, indices = n.input(0), n.input(1)
        axis = normalize_axis(n.attr("axis", 0), len(x.shape))
        check_indices(n, indices, x.shape[axis], f"axis {axis} of {x.type}")
        return n.make(cls(axis), x, indices)

    def infer(self, *inputs: TensorType) -> TensorType:
        x, indices = inputs
        fits = x.rank == indices.rank and all(
            axis == self.axis or length <= x.shape[axis]
            for axis, length in enumerate(indices.shape)
        )
        if not fits or indices.dtype.is_float:
            raise MdlcError(f"{indices} are not indices into axis {self.axis} of {x}")
        return TensorType(indices.shape, x.dtype)

    def moves(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return (0,)

    def reference(self, *inputs: Array) -> Array:
        x, indices = inputs
        within = x[tuple(slice(None if a == self.axis else d) for a, d in enumerate(indices.shape))]
        length = x.shape[self.axis]
        at = np.clip(np.where(indices < 0, indices + length, indices), 0, length - 1)
        return np.take_along_axis(within, at.astype(np.int64), self.axis)

    def follows(self, inputs: Sequence[TensorType], index: int, axis: int) -> int | None:
        return axis if index == 1 or axis != self.axis else None

    def to_onnx(self) -> OnnxForm:
        return "GatherElements", {"axis": self.axis}, ()

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = random_array(1, 3, 6, 4, 5)
        random = np.random.default_rng(2)
        some = random.integers(-6, 6, (2, 7, 4, 3), np.int64)
        rows = random.integers(0, 3, (5, 6, 4, 5)).astype(np.int32)
        whole = np.arange(20, dtype=np.int64).reshape(4, 5)
        return (
            Sample(cls(1), (x, some), label="runtime"),
            Sample(cls(1), (x, some), (1,), "constant"),
            Sample(cls(0), (x, rows), (1,), "rows"),
            Sample(cls(0), (x, rows), (0,), "table"),
            Sample(cls(1), (whole, random.integers(-5, 5, (3, 2), np.int64)), label="i64"),
            Sample(cls(0), (whole[0] % 2 == 0, whole[1] % 5), label="bool"),
        )
