"""NonZero and Compress: where a tensor is not 0, and the entries that a condition takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.counts import Counted, Part, part
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Sample, normalize_axis, random_array
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.gather import Gather
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.slice import Slice
from mdlc.compiler.types import Array, DType, TensorType


@dataclass(frozen=True)
class NonZero(Counted):
    """The indices of the elements that are not 0, in order, a row for each axis; then 0.

    Compress is imported as a Gather at the indices of its condition. Of more than `bound`
    elements the first ones are found.

    Sources: ONNX specification, operators NonZero and Compress.
    """

    onnx: ClassVar[tuple[str, ...]] = ("NonZero", "Compress")

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        return cls._compress(n) if n.op_type == "Compress" else cls._non_zero(n)

    @classmethod
    def _non_zero(cls, n: OnnxNode) -> Node:
        x = n.input(0)
        value = x.constant
        if value is not None:  # PyTorch counts with it: the indices of ones, shaped like a range
            found = np.array(np.nonzero(np.atleast_1d(value)), np.int64)[: value.ndim]
            return constant(found, n.outputs[0])
        if not x.shape:
            raise n.error("a scalar has no indices")
        return part(n.make(cls(n.bound(0, x.type.size)), x), 0, n.outputs[0], n.name)

    @classmethod
    def _compress(cls, n: OnnxNode) -> Node:
        x, condition = n.input(0), n.input(1)
        axis = n.attr("axis")
        if axis is None:
            x, axis = n.make(Reshape((x.type.size,)), x), 0
        axis = normalize_axis(axis, len(x.shape))
        if len(condition.shape) != 1:
            raise n.error(f"its condition is {condition.type}, not a vector")
        taken = min(condition.shape[0], x.shape[axis])
        if condition.constant is not None:
            places = constant(np.flatnonzero(condition.constant[:taken]))
        else:
            condition = n.make(Slice.along(condition.shape, 0, 0, taken), condition)
            found = part(n.make(cls(n.bound(0, taken)), condition), 0)
            places = n.make(Reshape(found.shape[1:]), found)
        return n.make(Gather(axis), x, places)

    def parts(self, inputs: Sequence[TensorType]) -> tuple[Part, ...]:
        return (Part(0, (inputs[0].rank, self.bound), 1),)

    def infer(self, *inputs: TensorType) -> TensorType:
        x = inputs[0]
        if not 1 <= self.bound <= x.size or not x.rank:
            raise MdlcError(f"{x} has no {self.bound} indices")
        return TensorType((x.rank * self.bound + 1,), DType.I64)

    def reference(self, *inputs: Array) -> Array:
        found = np.array(np.nonzero(inputs[0]), np.int64)[:, : self.bound]
        count = found.shape[1]
        filled = np.pad(found, ((0, 0), (0, self.bound - count)))
        return np.append(filled.reshape(-1), count)

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = np.round(random_array(1, 3, 4, 5))
        return (
            Sample(cls(60), (x,), label="all"),
            Sample(cls(7), (x,), label="bounded"),
            Sample(cls(9), (np.array([1, 0, 0, 1, 1, 0, 0, 0, 1], np.bool_),), label="vector"),
            Sample(cls(12), (np.zeros((3, 4), np.int32),), label="none"),
            Sample(cls(6), (np.array([[np.nan, 0, -0.0], [np.inf, 2, 0]], np.float64),),
                   label="special"),
        )  # fmt: skip
