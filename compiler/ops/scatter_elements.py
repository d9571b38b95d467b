"""ScatterElements: values written to, or combined with, the entries at indices of one axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import OnnxForm, Op, Sample, normalize_axis, random_array
from mdlc.compiler.ops.gather import check_indices
from mdlc.compiler.types import Array, TensorType

# What is done with the entry that is there and the new one.
COMBINE: dict[str, Callable[[Any, Any], Any]] = {
    "none": lambda old, new: new,
    "add": lambda old, new: old + new,
    "mul": lambda old, new: old * new,
    "max": np.maximum,
    "min": np.minimum,
}


@dataclass(frozen=True)
class ScatterElements(Op):
    """y = x, but y[index[i, j, k], j, k] = updates[i, j, k] for axis 0, and likewise for others.

    Entries are written in order, the last one stays. Negative indices count from the end; on the
    device, those outside write nothing.

    Attributes:
        reduction: "none", or how the entry that is there and the new one become one: "add",
            "mul", "max" or "min".

    Sources: ONNX specification, operators ScatterElements and Scatter.
    """

    axis: int = 0
    reduction: str = "none"

    onnx: ClassVar[tuple[str, ...]] = ("ScatterElements", "Scatter")

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x, indices, updates = n.input(0), n.input(1), n.input(2)
        axis = normalize_axis(n.attr("axis", 0), len(x.shape))
        check_indices(n, indices, x.shape[axis], f"axis {axis} of {x.type}")
        return n.make(cls(axis, n.attr("reduction", "none")), x, indices, updates)

    def infer(self, *inputs: TensorType) -> TensorType:
        x, indices, updates = inputs
        if self.reduction not in COMBINE:
            raise MdlcError(f"reduction {self.reduction!r} is not known")
        fits = indices.shape == updates.shape and x.rank == indices.rank and all(
            axis == self.axis or length <= x.shape[axis]
            for axis, length in enumerate(indices.shape)
        )  # fmt: skip
        if not fits or indices.dtype.is_float or x.dtype is not updates.dtype:
            raise MdlcError(f"{updates} cannot go to {indices} along axis {self.axis} of {x}")
        return TensorType(x.shape, x.dtype)

    def ignores(self, inputs: Sequence[TensorType], index: int, axis: int) -> float | None:
        # An index outside writes nothing; what it would have written is of no account.
        return (None, float(inputs[0].shape[self.axis]), 0.0)[index]

    def moves(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return (0, 2) if self.reduction == "none" else ()

    def reference(self, *inputs: Array) -> Array:
        x, indices, updates = inputs
        y = x.copy()
        combine, length = COMBINE[self.reduction], x.shape[self.axis]
        for place in np.ndindex(*indices.shape):
            at = int(indices[place])
            at += length if at < 0 else 0
            if 0 <= at < length:
                to = (*place[: self.axis], at, *place[self.axis + 1 :])
                y[to] = combine(y[to], updates[place])
        return y

    def to_onnx(self) -> OnnxForm:
        return "ScatterElements", {"axis": self.axis, "reduction": self.reduction}, ()

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = random_array(1, 3, 6, 4, 5)
        random = np.random.default_rng(2)
        # Every index once along the axis, so that the order of writing does not matter.
        places = np.argsort(random.random((3, 6, 2, 4)), axis=1)[:, :3] - 6
        some = random.integers(-6, 6, (3, 7, 4, 2), np.int64)
        new = random_array(3, 3, 7, 4, 2)
        whole = np.arange(20, dtype=np.int64).reshape(4, 5)
        pairs = np.array([[1, 0, 1, -1, 2]], np.int32)
        return (
            Sample(cls(1), (x, places, random_array(4, *places.shape)), label="runtime"),
            Sample(cls(1), (x, places, random_array(4, *places.shape)), (0, 1), "constant"),
            *(
                Sample(cls(1, kind), (x, some, new), label=kind)
                for kind in COMBINE
                if kind[0] != "n"
            ),
            Sample(cls(0, "add"), (whole, pairs, whole[2:3]), (1,), "i64"),
        )
