"""MaxRoiPool: the largest pixel of every cell of a region."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Cost, LayoutRule, OnnxForm, Op, Sample, random_array
from mdlc.compiler.types import Array, TensorType


@dataclass(frozen=True)
class MaxRoiPool(Op):
    """y[r, c] = `size` cells of region r, the largest pixel of each, 0 where there is none.

    Inputs: x [N, C, H, W] and regions [R, 5]: image, then two corners x, y, which are rounded to
    pixels after multiplication with `scale`.

    Sources: ONNX specification, operator MaxRoiPool; R. Girshick, Fast R-CNN, 2015.
    """

    size: tuple[int, int]
    scale: float = 1.0

    onnx: ClassVar[tuple[str, ...]] = ("MaxRoiPool",)
    layout_rule: ClassVar[LayoutRule] = LayoutRule.NATIVE

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        height, width = n.attr("pooled_shape")
        return n.make(cls((height, width), n.attr("spatial_scale", 1.0)), n.input(0), n.input(1))

    def infer(self, *inputs: TensorType) -> TensorType:
        x, regions = inputs
        fits = x.rank == 4 and regions.rank == 2 and regions.shape[1] == 5
        if not fits or min(self.size) < 1:
            raise MdlcError(f"regions {regions} do not fit {x}")
        return TensorType((regions.shape[0], x.shape[1], *self.size), x.dtype)

    def _cells(self, low: float, high: float, axis: int, length: int) -> list[tuple[int, int]]:
        """First and last pixel (exclusive) of every cell along an axis."""
        first, last = (_rounded(float(np.float32(v) * np.float32(self.scale))) for v in (low, high))
        side = np.float32(max(last - first + 1, 1)) / np.float32(self.size[axis])
        found = []
        for cell in range(self.size[axis]):
            start = math.floor(np.float32(cell) * side) + first
            end = math.ceil(np.float32(cell + 1) * side) + first
            found.append((min(max(start, 0), length), min(max(end, 0), length)))
        return found

    def reference(self, *inputs: Array) -> Array:
        x, regions = inputs
        result = np.zeros((len(regions), x.shape[1], *self.size), x.dtype)
        for number, (image, left, top, right, bottom) in enumerate(regions):
            down = self._cells(top, bottom, 0, x.shape[2])
            across = self._cells(left, right, 1, x.shape[3])
            source = x[min(max(int(image), 0), len(x) - 1)]
            for i, (a, b) in enumerate(down):
                for j, (c, d) in enumerate(across):
                    if a < b and c < d:
                        result[number, :, i, j] = source[:, a:b, c:d].max((1, 2))
        return result

    def channel_map(
        self, inputs: Sequence[TensorType], output: TensorType
    ) -> tuple[Array | None, ...] | None:
        return np.arange(output.shape[1]), None

    def follows(self, inputs: Sequence[TensorType], index: int, axis: int) -> int | None:
        return 0 if index == 1 and axis == 0 else None

    def cost(self, inputs: Sequence[TensorType], output: TensorType) -> Cost:
        return Cost(output.size, sum(t.nbytes for t in inputs) + output.nbytes)

    def to_onnx(self) -> OnnxForm:
        return "MaxRoiPool", {"pooled_shape": self.size, "spatial_scale": self.scale}, ()

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = random_array(1, 2, 5, 9, 11)
        regions = np.array(
            [[0, 0, 0, 5, 5], [1, 2, 3, 10, 8], [1, 9, 7, 10, 8], [0, -3, -2, 20, 20]], np.float32
        )
        return (
            Sample(cls((2, 3)), (x, regions), label="whole"),
            Sample(cls((3, 2), 0.6), (x, regions), label="scaled"),
            Sample(cls((1, 1)), (x[:1], regions[:1]), label="cell"),
            Sample(cls((2, 1)), (x, regions[1:]), label="column"),
        )


def _rounded(value: float) -> int:
    """To the nearest whole number, halves away from 0."""
    return int(math.copysign(math.floor(abs(float(value)) + 0.5), float(value)))
