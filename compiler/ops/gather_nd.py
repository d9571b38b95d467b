"""GatherND: slices by the indices of their first axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import OnnxForm, Op, Sample, random_array
from mdlc.compiler.ops.gather import check_indices
from mdlc.compiler.types import Array, TensorType


@dataclass(frozen=True)
class GatherND(Op):
    """y[b, i] = x[b, index[b, i, 0], index[b, i, 1], ...] for `batch_dims` axes b that both share.

    Negative indices count from the end; on the device, those outside are the nearest inside.

    Source: ONNX specification, operator GatherND.
    """

    batch_dims: int = 0

    onnx: ClassVar[tuple[str, ...]] = ("GatherND",)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x, indices = n.input(0), n.input(1)
        y = n.make(cls(n.attr("batch_dims", 0)), x, indices)
        for k in range(indices.shape[-1]):
            axis = n.attr("batch_dims", 0) + k
            check_indices(n, indices, x.shape[axis], f"axis {axis} of {x.type}", k)
        return y

    def infer(self, *inputs: TensorType) -> TensorType:
        x, indices = inputs
        batch = self.batch_dims
        fits = 0 <= batch < min(x.rank, indices.rank) and x.shape[:batch] == indices.shape[:batch]
        if not fits or indices.dtype.is_float or batch + indices.shape[-1] > x.rank:
            raise MdlcError(f"{indices} are not indices into {x} behind {batch} axes")
        return TensorType((*indices.shape[:-1], *x.shape[batch + indices.shape[-1] :]), x.dtype)

    def moves(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return (0,)

    def reference(self, *inputs: Array) -> Array:
        x, indices = inputs
        batch, depth = self.batch_dims, indices.shape[-1]
        lengths = np.array(x.shape[batch : batch + depth], np.int64)
        at = np.clip(np.where(indices < 0, indices + lengths, indices), 0, lengths - 1)
        shared = np.indices(indices.shape[:-1])[:batch]
        return np.asarray(x[(*shared, *np.moveaxis(at, -1, 0))])

    def follows(self, inputs: Sequence[TensorType], index: int, axis: int) -> int | None:
        if index == 1:
            return axis if axis < inputs[1].rank - 1 else None
        depth = inputs[1].shape[-1]
        if self.batch_dims <= axis < self.batch_dims + depth:
            return None
        return (
            axis if axis < self.batch_dims else axis - depth + inputs[1].rank - 1 - self.batch_dims
        )

    def to_onnx(self) -> OnnxForm:
        return "GatherND", {"batch_dims": self.batch_dims}, ()

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = random_array(1, 3, 6, 4, 5)
        random = np.random.default_rng(2)
        pairs = np.stack([random.integers(-3, 3, 7), random.integers(-6, 6, 7)], 1)
        batched = random.integers(0, 4, (3, 6, 2, 1))
        points = np.stack([random.integers(0, d, (2, 3)) for d in x.shape], -1)
        return (
            Sample(cls(), (x, pairs), label="runtime"),
            Sample(cls(), (x, pairs), (1,), "constant"),
            Sample(cls(2), (x, batched), label="batch"),
            Sample(cls(), (x, points), (0,), "points"),
            Sample(cls(), (np.arange(6, dtype=np.int64), np.array([[4], [-1]])), label="i64"),
        )
