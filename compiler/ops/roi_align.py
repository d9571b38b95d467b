"""RoiAlign: the mean or the largest of samples of a region, in a grid of cells."""

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

# Samples along one side of a cell.
MOST_SAMPLES = 1024


@dataclass(frozen=True)
class RoiAlign(Op):
    """y[r, c] = `size` cells of region r of x[batch[r], c].

    Inputs: x [N, C, H, W], regions [R, 4] (two corners x, y, in units that `scale` makes pixels)
    and their images [R]. Samples are bilinear, as many along each side of a cell as `ratio` says,
    or one a pixel for 0.

    Attributes:
        largest: of the samples (each the largest of its four weighted pixels) instead of the mean.
        half_pixel: centres of pixels lie at halves; else regions are at least a pixel large.

    Source: ONNX specification, operator RoiAlign.
    """

    size: tuple[int, int]
    ratio: int = 0
    scale: float = 1.0
    largest: bool = False
    half_pixel: bool = True

    onnx: ClassVar[tuple[str, ...]] = ("RoiAlign",)
    layout_rule: ClassVar[LayoutRule] = LayoutRule.NATIVE

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        mode = n.attr("mode", "avg")
        default = "output_half_pixel" if n.opset < 16 else "half_pixel"
        coordinates = n.attr("coordinate_transformation_mode", default)
        if mode not in ("avg", "max"):
            raise n.error(f"mode {mode!r} is not known")
        op = cls(
            (n.attr("output_height", 1), n.attr("output_width", 1)),
            n.attr("sampling_ratio", 0),
            n.attr("spatial_scale", 1.0),
            mode == "max",
            coordinates == "half_pixel",
        )
        return n.make(op, *(n.input(i) for i in range(3)))

    def infer(self, *inputs: TensorType) -> TensorType:
        x, regions, batch = inputs
        fits = x.rank == 4 and regions.rank == 2 and regions.shape[1] == 4
        if not fits or batch.shape != regions.shape[:1] or min(self.size) < 1 or self.ratio < 0:
            raise MdlcError(f"regions {regions} of images {batch} do not fit {x}")
        return TensorType((regions.shape[0], x.shape[1], *self.size), x.dtype)

    def _samples(self, start: float, length: float, cell: int, axis: int) -> Array:
        """Where the samples of a cell lie along an axis."""
        side = length / self.size[axis]
        count = self.ratio or min(MOST_SAMPLES, max(0, math.ceil(side)))
        return start + cell * side + (np.arange(count) + 0.5) * side / max(count, 1)

    def reference(self, *inputs: Array) -> Array:
        x, regions, batch = inputs
        result = np.zeros((len(regions), x.shape[1], *self.size))
        for number, (region, image) in enumerate(zip(regions, batch, strict=True)):
            low = region.astype(np.float64) * self.scale - (0.5 if self.half_pixel else 0.0)
            lengths = low[2:] - low[:2]
            if not self.half_pixel:
                lengths = np.maximum(lengths, 1.0)
            for row, column in np.ndindex(*self.size):
                down = self._samples(low[1], lengths[1], row, 0)
                across = self._samples(low[0], lengths[0], column, 1)
                found = [
                    _corners(x[min(max(image, 0), len(x) - 1)], v, u) for v in down for u in across
                ]
                if not found:
                    continue
                values = np.array(found)  # [sample, corner, channel]
                cell = values.max((0, 1)) if self.largest else values.sum(1).mean(0)
                result[number, :, row, column] = cell
        return result.astype(x.dtype)

    def channel_map(
        self, inputs: Sequence[TensorType], output: TensorType
    ) -> tuple[Array | None, ...] | None:
        return np.arange(output.shape[1]), None, None

    def follows(self, inputs: Sequence[TensorType], index: int, axis: int) -> int | None:
        return 0 if index > 0 and axis == 0 else None

    def cost(self, inputs: Sequence[TensorType], output: TensorType) -> Cost:
        taps = 4 * (self.ratio or 2) ** 2
        return Cost(output.size * taps, sum(t.nbytes for t in inputs) + output.nbytes)

    def to_onnx(self) -> OnnxForm:
        attributes = {
            "mode": "max" if self.largest else "avg",
            "output_height": self.size[0],
            "output_width": self.size[1],
            "sampling_ratio": self.ratio,
            "spatial_scale": self.scale,
            "coordinate_transformation_mode": "half_pixel"
            if self.half_pixel
            else "output_half_pixel",
        }
        return "RoiAlign", attributes, ()

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = random_array(1, 2, 5, 9, 11, low=0)
        corners = np.random.default_rng(2).uniform(-2, 14, (6, 2, 2))
        regions = np.sort(corners, 1).reshape(6, 4).astype(np.float32)
        batch = np.array([0, 1, 1, 0, 0, 1], np.int64)
        given = (x, regions, batch)
        return (
            Sample(cls((3, 2), 2), given, label="mean"),
            Sample(cls((2, 3), 0, 0.7), given, label="adaptive"),
            Sample(cls((3, 3), 2, 0.5, half_pixel=False), given, label="whole"),
            Sample(cls((2, 2), 3, largest=True), given, label="max"),
            Sample(cls((1, 1), 2), (x[:1], regions[:1], batch[:1]), label="cell"),
            Sample(cls((1, 2), 0), given, label="row"),
        )


def _corners(image: Array, v: float, u: float) -> Array:
    """The four weighted pixels around a place, [corner, channel]; 0 where it is outside."""
    height, width = image.shape[1:]
    if v < -1 or v > height or u < -1 or u > width:
        return np.zeros((4, len(image)))
    pairs = []
    for at, length in ((v, height), (u, width)):
        at = min(max(at, 0.0), length - 1.0)
        low = min(int(at), length - 1)
        pairs.append(((low, 1 - (at - low)), (min(low + 1, length - 1), at - low)))
    return np.array([image[:, i, j] * a * b for i, a in pairs[0] for j, b in pairs[1]])
