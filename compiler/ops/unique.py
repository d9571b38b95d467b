"""Unique: the values of a tensor, or the slices along an axis, each once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cmp_to_key
from typing import ClassVar

import numpy as np

from mdlc.compiler.counts import Counted, Part, part
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Sample, normalize_axis, random_array
from mdlc.compiler.ops.gather import Gather
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.types import Array, DType, TensorType


@dataclass(frozen=True)
class Unique(Counted):
    """Slices along `axis` that differ: for each the index where it first stands, and how often it
    does, both filled with 0; then for each slice the number of the one that it is.

    `ordered`: the slices are numbered as they ascend; else, by where they first stand. NaN comes
    behind all numbers, and is one value. ONNX's Unique is imported as this and a Gather of the
    slices.

    Source: ONNX specification, operator Unique.
    """

    axis: int
    ordered: bool = True

    onnx: ClassVar[tuple[str, ...]] = ("Unique",)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Sequence[Node]:
        x = n.input(0)
        axis = n.attr("axis")
        if axis is None:
            x, axis = n.make(Reshape((x.type.size,)), x), 0
        axis = normalize_axis(axis, len(x.shape))
        length = x.shape[axis]
        found = n.make(cls(n.bound(0, length), axis, bool(n.attr("sorted", 1))), x)
        names = [*n.outputs, "", "", ""]
        first, counts, which = (part(found, i, names[(1, 3, 2)[i]], n.name) for i in range(3))
        return n.make(Gather(axis), x, first), first, which, counts

    def parts(self, inputs: Sequence[TensorType]) -> tuple[Part, ...]:
        length = inputs[0].shape[self.axis]
        return (
            Part(0, (self.bound,), 0),
            Part(self.bound, (self.bound,), 0),
            Part(2 * self.bound, (length,), None),
        )

    def infer(self, *inputs: TensorType) -> TensorType:
        x = inputs[0]
        if not 0 <= self.axis < x.rank or not 1 <= self.bound <= x.shape[self.axis]:
            raise MdlcError(f"{x} has no {self.bound} slices along axis {self.axis}")
        return TensorType((2 * self.bound + x.shape[self.axis] + 1,), DType.I64)

    def reference(self, *inputs: Array) -> Array:
        slices = np.moveaxis(inputs[0], self.axis, 0).reshape(inputs[0].shape[self.axis], -1)

        def compare(a: int, b: int) -> int:
            return _order(slices, a, b)

        order = sorted(range(len(slices)), key=cmp_to_key(compare))
        groups: list[list[int]] = []
        for at in order:
            if groups and _order(slices, groups[-1][0], at) == 0:
                groups[-1].append(at)
            else:
                groups.append([at])
        for group in groups:
            group.sort()
        if not self.ordered:
            groups.sort()
        which = np.zeros(len(slices), np.int64)
        for number, group in enumerate(groups):
            which[group] = number
        kept = groups[: self.bound]
        fill = [0] * (self.bound - len(kept))
        first, counts = [g[0] for g in kept] + fill, [len(g) for g in kept] + fill
        return np.array([*first, *counts, *which, len(kept)], np.int64)

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = np.round(random_array(1, 40, low=-5, high=5))
        rows = np.array([[1, 0], [2, 3], [1, 0], [0, 9], [2, 3], [2, 3]], np.float32)
        special = np.array([np.nan, 1, -np.inf, np.nan, -0.0, 0.0, 1], np.float32)
        return (
            Sample(cls(40, 0), (x,), label="sorted"),
            Sample(cls(40, 0, False), (x,), label="first"),
            Sample(cls(4, 0), (x,), label="bounded"),
            Sample(cls(6, 0), (rows,), label="rows"),
            Sample(cls(2, 1, False), (rows,), label="columns"),
            Sample(cls(3, 2), (x.reshape(1, 4, 10)[:, :, :3].astype(np.int64),), label="i64"),
            Sample(cls(7, 0), (special,), label="special"),
        )


def _order(slices: Array, a: int, b: int) -> int:
    """Below, equal to or above: the first of two slices' elements that differ decides."""
    for x, y in zip(slices[a], slices[b], strict=True):
        if (x != x) != (y != y):
            return 1 if x != x else -1
        if x < y or x > y:
            return -1 if x < y else 1
    return 0
