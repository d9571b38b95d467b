"""ScatterND: slices written to, or combined with, those at the indices of their first axes."""

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
from mdlc.compiler.ops.scatter_elements import COMBINE
from mdlc.compiler.types import Array, TensorType


@dataclass(frozen=True)
class ScatterND(Op):
    """y = x, but y[index[i, 0], index[i, 1], ...] = updates[i].

    Slices are written in order, the last one stays. Negative indices count from the end; on the
    device, those outside write nothing.

    Attributes:
        reduction: as of ScatterElements.

    Source: ONNX specification, operator ScatterND.
    """

    reduction: str = "none"

    onnx: ClassVar[tuple[str, ...]] = ("ScatterND",)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x, indices, updates = n.input(0), n.input(1), n.input(2)
        y = n.make(cls(n.attr("reduction", "none")), x, indices, updates)
        for axis in range(indices.shape[-1]):
            check_indices(n, indices, x.shape[axis], f"axis {axis} of {x.type}", axis)
        return y

    def infer(self, *inputs: TensorType) -> TensorType:
        x, indices, updates = inputs
        if self.reduction not in COMBINE:
            raise MdlcError(f"reduction {self.reduction!r} is not known")
        if not indices.rank or indices.shape[-1] > x.rank or indices.dtype.is_float:
            raise MdlcError(f"{indices} are not indices into {x}")
        wanted = (*indices.shape[:-1], *x.shape[indices.shape[-1] :])
        if updates.shape != wanted or updates.dtype is not x.dtype:
            raise MdlcError(f"updates {updates} are not {x.dtype.value}{list(wanted)}")
        return TensorType(x.shape, x.dtype)

    def ignores(self, inputs: Sequence[TensorType], index: int, axis: int) -> float | None:
        # An index outside writes nothing; what it would have written is of no account.
        return (None, float(max(inputs[0].shape)), 0.0)[index]

    def moves(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return (0, 2) if self.reduction == "none" else ()

    def reference(self, *inputs: Array) -> Array:
        x, indices, updates = inputs
        y, combine = x.copy(), COMBINE[self.reduction]
        lengths = np.array(x.shape[: indices.shape[-1]], np.int64)
        for place in np.ndindex(*indices.shape[:-1]):
            at = np.where(indices[place] < 0, indices[place] + lengths, indices[place])
            if np.all((at >= 0) & (at < lengths)):
                to = tuple(int(i) for i in at)
                y[to] = combine(y[to], updates[place])
        return y

    def to_onnx(self) -> OnnxForm:
        return "ScatterND", {"reduction": self.reduction}, ()

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = random_array(1, 3, 6, 4, 5)
        pairs = np.array([[0, 1], [2, -1], [-2, 3]], np.int64)
        again = np.array([[0, 1], [2, -1], [0, 1]], np.int64)
        new = random_array(3, 3, 4, 5)
        points = np.array([[[0, 1, 2, 3]], [[2, 5, 0, -5]]], np.int64)
        whole = np.arange(20, dtype=np.int64).reshape(4, 5)
        return (
            Sample(cls(), (x, pairs, new), label="runtime"),
            Sample(cls(), (x, pairs, new), (1,), "constant"),
            Sample(cls(), (x, points, random_array(4, 2, 1)), (0,), "points"),
            *(Sample(cls(kind), (x, again, new), label=kind) for kind in COMBINE if kind != "none"),
            Sample(cls("add"), (whole, again[:, :1], whole[:3]), (1,), "i64"),
        )
