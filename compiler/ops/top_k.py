"""TopK: where the K largest or smallest entries along an axis are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Cost, Op, Sample, normalize_axis, random_array
from mdlc.compiler.ops.gather_elements import GatherElements
from mdlc.compiler.types import Array, DType, TensorType


@dataclass(frozen=True)
class TopK(Op):
    """The indices (int64) of the `count` largest or smallest entries along `axis`, best first.

    Of equal entries the first comes first; NaN counts as the largest. ONNX's TopK is imported as
    this and a GatherElements for the values; where it asks for no order, the order is the same.

    Source: ONNX specification, operator TopK.
    """

    axis: int
    count: int
    largest: bool = True

    onnx: ClassVar[tuple[str, ...]] = ("TopK",)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Sequence[Node]:
        x = n.input(0)
        axis = normalize_axis(n.attr("axis", -1), len(x.shape))
        count = n.attr("k") if n.opset < 10 else n.const(1).reshape(-1)[0]
        indices = n.make(cls(axis, int(count), bool(n.attr("largest", 1))), x, output=1)
        return n.make(GatherElements(axis), x, indices), indices

    def infer(self, *inputs: TensorType) -> TensorType:
        x = inputs[0]
        if not 0 <= self.axis < x.rank or not 1 <= self.count <= x.shape[self.axis]:
            raise MdlcError(f"{x} has no {self.count} entries along axis {self.axis}")
        shape = list(x.shape)
        shape[self.axis] = self.count
        return TensorType(tuple(shape), DType.I64)

    def reference(self, *inputs: Array) -> Array:
        # Stable from the largest down: the first of equals first, as sorted from the end up.
        x = np.moveaxis(inputs[0], self.axis, -1)
        if self.largest:
            order = np.flip(x.shape[-1] - 1 - np.argsort(np.flip(x, -1), -1, kind="stable"), -1)
        else:
            order = np.argsort(x, -1, kind="stable")
        return np.ascontiguousarray(np.moveaxis(order[..., : self.count], -1, self.axis), np.int64)

    def follows(self, inputs: Sequence[TensorType], index: int, axis: int) -> int | None:
        return axis if axis != self.axis else None

    def cost(self, inputs: Sequence[TensorType], output: TensorType) -> Cost:
        return Cost(inputs[0].size, inputs[0].nbytes + output.nbytes)

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = np.round(random_array(1, 2, 21, 3, 4, low=-9, high=9))
        return (
            Sample(cls(1, 5), (x,), label="channels"),
            Sample(cls(3, 4), (x,), label="all"),
            Sample(cls(0, 1, False), (x,), label="smallest"),
            Sample(cls(0, 7), (random_array(2, 50),), label="vector"),
            Sample(cls(1, 3, False), (x[0, :, 0].astype(np.int64),), label="i64"),
        )
