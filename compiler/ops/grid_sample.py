"""GridSample: values at places that a grid gives, between pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Cost, LayoutRule, OnnxForm, Op, Sample, random_array
from mdlc.compiler.types import Array, DType, TensorType

MODES = ("nearest", "linear", "cubic")
PADDINGS = ("zeros", "border", "reflection")
_CUBIC = -0.75


@dataclass(frozen=True)
class GridSample(Op):
    """y[n, c, p] = x[n, c] at the place grid[n, p], of 2 or 3 axes.

    A place is (x, y) or (x, y, z), from -1 at one end of an axis to 1 at the other: the outer
    pixels' centres where corners are aligned, else their outer edges.

    Attributes:
        mode: one of MODES; padding: one of PADDINGS, for what lies outside.

    Source: ONNX specification, operator GridSample.
    """

    mode: str = "linear"
    padding: str = "zeros"
    align_corners: bool = False

    onnx: ClassVar[tuple[str, ...]] = ("GridSample",)
    layout_rule: ClassVar[LayoutRule] = LayoutRule.NATIVE

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        mode = n.attr("mode", "linear")
        mode = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
        op = cls(mode, n.attr("padding_mode", "zeros"), bool(n.attr("align_corners", 0)))
        return n.make(op, n.input(0), n.input(1))

    def infer(self, *inputs: TensorType) -> TensorType:
        x, grid = inputs
        fits = (
            x.rank in (4, 5)
            and grid.rank == x.rank
            and grid.shape[0] == x.shape[0]
            and grid.shape[-1] == x.rank - 2
            and grid.dtype in (DType.F32, DType.F64)
        )
        if not fits or self.mode not in MODES or self.padding not in PADDINGS:
            raise MdlcError(
                f"{x} is not sampled at {grid} by mode {self.mode!r}, padding {self.padding!r}"
            )
        return TensorType((*x.shape[:2], *grid.shape[1:-1]), x.dtype)

    def _taps(self, at: Array, length: int) -> tuple[Array, Array]:
        """Indices along an axis and their weights, [place, tap]; weight 0 for zeros outside."""
        one = np.float32(1)
        at = at.astype(np.float32)
        low, high = (0.0, length - 1.0) if self.align_corners else (-0.5, length - 0.5)
        if self.align_corners:
            at = (at + one) / 2 * np.float32(length - 1)
        else:
            at = ((at + one) * np.float32(length) - one) / 2
        if self.mode == "nearest":
            at = np.rint(at)
        # Of cubic ones, only the pixels that a place is made of, as in PyTorch.
        outside = ((at < low) | (at > high)) & (self.mode != "cubic")
        if self.padding == "border":
            at = np.where(outside, np.clip(at, 0, length - 1), at)
        elif self.padding == "reflection":
            at = np.where(outside, _reflected(at, low, high), at)
        base = np.floor(at)
        r = (at - base).astype(np.float64)
        if self.mode == "nearest":
            places, weights = at[..., None], np.ones((*at.shape, 1))
        elif self.mode == "linear":
            places, weights = base[..., None] + np.arange(2), np.stack([1 - r, r], -1)
        else:
            a = _CUBIC
            places = base[..., None] + np.arange(-1, 3)
            weights = np.stack(
                [
                    ((a * (r + 1) - 5 * a) * (r + 1) + 8 * a) * (r + 1) - 4 * a,
                    ((a + 2) * r - (a + 3)) * r * r + 1,
                    ((a + 2) * (1 - r) - (a + 3)) * (1 - r) * (1 - r) + 1,
                    ((a * (2 - r) - 5 * a) * (2 - r) + 8 * a) * (2 - r) - 4 * a,
                ],
                -1,
            )
        if self.padding == "zeros":
            weights = weights * ((places >= 0) & (places < length))
        elif self.padding == "reflection":
            # Halves that are the edges of pixels lead into them.
            places = np.trunc(_reflected(places, low, high))
        return np.clip(places, 0, length - 1).astype(np.int64), weights

    def reference(self, *inputs: Array) -> Array:
        x, grid = inputs
        axes = x.ndim - 2
        images = []
        for image, places in zip(x, grid, strict=True):
            each = [
                self._taps(places[..., axes - 1 - axis], x.shape[2 + axis]) for axis in range(axes)
            ]
            total = np.zeros((x.shape[1], *grid.shape[1:-1]))
            for choice in product(*(range(weights.shape[-1]) for _, weights in each)):
                taps = list(zip(each, choice, strict=True))
                weight = np.prod([weights[..., t] for (_, weights), t in taps], axis=0)
                value = image[(slice(None), *(index[..., t] for (index, _), t in taps))]
                total += np.where(weight != 0, weight * value, 0)
            images.append(total)
        return np.stack(images).astype(x.dtype)

    def channel_map(
        self, inputs: Sequence[TensorType], output: TensorType
    ) -> tuple[Array | None, ...] | None:
        return np.arange(output.shape[1]), None

    def follows(self, inputs: Sequence[TensorType], index: int, axis: int) -> int | None:
        return axis + 1 if index == 1 and 0 < axis < inputs[1].rank - 1 else None

    def cost(self, inputs: Sequence[TensorType], output: TensorType) -> Cost:
        taps = (MODES.index(self.mode) * 2 or 1) ** (inputs[0].rank - 2)
        return Cost(output.size * taps, sum(t.nbytes for t in inputs) + output.nbytes)

    def to_onnx(self) -> OnnxForm:
        attributes = {
            "mode": self.mode,
            "padding_mode": self.padding,
            "align_corners": int(self.align_corners),
        }
        return "GridSample", attributes, ()

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = random_array(1, 2, 5, 4, 6)
        grid = random_array(2, 2, 3, 7, 2, low=-1.6, high=1.6)
        volume, places = random_array(3, 1, 2, 3, 4, 5), random_array(4, 1, 2, 3, 4, 3, low=-1.3)
        return (
            *(
                Sample(cls(mode, padding, i % 2 == 1), (x, grid), label=f"{mode}_{padding}")
                for i, (mode, padding) in enumerate(product(MODES, PADDINGS))
            ),
            Sample(cls("linear", "zeros"), (volume, places), label="volume"),
            Sample(cls("nearest", "reflection", True), (volume, places), label="volume_nearest"),
            Sample(cls("linear", "border"), (x[:1], grid[:1, :1, :1]), label="place"),
            Sample(cls("cubic", "zeros"), (x[:1, :1, :, :1], grid[:1, :, :1]), label="column"),
        )


def _reflected(at: Array, low: float, high: float) -> Array:
    """Places mirrored at both ends until they are between them."""
    span = high - low
    if span <= 0:
        return np.full_like(at, low)
    below = at < low
    away = np.where(below, low - at, at - high)
    turns = np.floor(away / span)
    rest = away - turns * span
    even = np.mod(turns, 2) == 0
    mirrored = np.where(below == even, low + rest, high - rest)
    return np.where((at < low) | (at > high), mirrored, at)
