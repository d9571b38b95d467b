"""NonMaxSuppression: of boxes that overlap, those of the best scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.counts import Counted, Part, part
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Cost, Sample
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.types import Array, DType, TensorType


@dataclass(frozen=True)
class NonMaxSuppression(Counted):
    """Rows (batch, class, box) of the boxes that are kept, filled with -1.

    Inputs are boxes [batch, box, 4], scores [batch, class, box], and, of one element each, the
    most boxes of a class, the overlap (intersection over union) above which a box is dropped, and
    the score above which boxes are looked at (of -inf: all). Boxes are two opposite corners, or
    `centers`: x, y of the centre, width, height. Classes by themselves, best scores first; of
    equal ones the first box.

    Source: ONNX specification, operator NonMaxSuppression.
    """

    centers: bool = False

    onnx: ClassVar[tuple[str, ...]] = ("NonMaxSuppression",)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        boxes, scores = n.input(0), n.input(1)
        if len(scores.shape) != 3 or len(boxes.shape) != 3:
            raise n.error(f"boxes {boxes.type} and scores {scores.type} are not of rank 3")
        zero = np.zeros(1, np.float32)
        absent: tuple[Array, ...] = (np.zeros(1, np.int64), zero, zero - np.float32(np.inf))
        given = [n.optional(2 + i) or constant(value) for i, value in enumerate(absent)]
        batch, classes, each = scores.shape
        most = given[0].constant
        if most is not None:
            each = min(each, max(0, int(most.reshape(-1)[0])))
        op = cls(n.bound(0, batch * classes * each), bool(n.attr("center_point_box", 0)))
        return part(n.make(op, boxes, scores, *given), 0, n.outputs[0], n.name)

    def parts(self, inputs: Sequence[TensorType]) -> tuple[Part, ...]:
        return (Part(0, (self.bound, 3), 0),)

    def infer(self, *inputs: TensorType) -> TensorType:
        boxes, scores, *rest = inputs
        fits = (
            boxes.rank == scores.rank == 3
            and boxes.shape == (scores.shape[0], scores.shape[2], 4)
            and boxes.dtype is scores.dtype is DType.F32
            and [t.dtype for t in rest] == [DType.I64, DType.F32, DType.F32]
            and all(t.size == 1 for t in rest)
        )
        if not fits or self.bound < 1:
            given = ", ".join(map(str, inputs))
            raise MdlcError(f"NonMaxSuppression does not take ({given})")
        return TensorType((3 * self.bound + 1,), DType.I64)

    def reference(self, *inputs: Array) -> Array:
        boxes, scores = inputs[0].astype(np.float32), inputs[1]
        most, overlap, least = (value.reshape(-1)[0] for value in inputs[2:])
        if self.centers:
            half = boxes[..., 2:] / np.float32(2)
            low, high = boxes[..., :2] - half, boxes[..., :2] + half
        else:
            low = np.minimum(boxes[..., :2], boxes[..., 2:])
            high = np.maximum(boxes[..., :2], boxes[..., 2:])
        rows: list[tuple[int, int, int]] = []
        for batch, label in np.ndindex(*scores.shape[:2]):
            own = scores[batch, label]
            looked = own >= least if np.isneginf(least) else own > least
            order = [i for i in np.argsort(-own, kind="stable") if looked[i]]
            kept: list[int] = []
            for box in order:
                if len(kept) >= most:
                    break
                pairs = [(low[batch, b], high[batch, b]) for b in (box, *kept)]
                if not any(_overlap(pairs[0], other) > overlap for other in pairs[1:]):
                    kept.append(int(box))
            rows += [(batch, label, box) for box in kept]
        rows = rows[: self.bound]
        filled = rows + [(-1, -1, -1)] * (self.bound - len(rows))
        return np.append(np.array(filled, np.int64).reshape(-1), len(rows))

    def cost(self, inputs: Sequence[TensorType], output: TensorType) -> Cost:
        return Cost(inputs[1].size * 8, sum(t.nbytes for t in inputs) + output.nbytes)

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        random = np.random.default_rng(4)
        corners = random.uniform(0, 1, (2, 30, 4)).astype(np.float32)
        centers = np.concatenate([corners[..., :2], corners[..., 2:] / 2], -1)
        scores = np.round(random.uniform(0, 1, (2, 3, 30)), 1).astype(np.float32)
        scores[0, 0, :4] = np.nan, np.inf, -np.inf, 0.5

        def numbers(most: int, overlap: float, least: float) -> tuple[Array, ...]:
            return (
                np.array([most], np.int64),
                np.array([overlap], np.float32),
                np.array([least], np.float32),
            )

        return (
            Sample(cls(60), (corners, scores, *numbers(10, 0.3, 0.4)), (2, 3, 4), "corners"),
            Sample(cls(180, True), (centers, scores, *numbers(99, 0.1, -np.inf)), (), "centers"),
            Sample(cls(7), (corners, scores, *numbers(4, 0.0, 0.0)), (2,), "bounded"),
        )


Corners = tuple[Array, Array]


def _overlap(a: Corners, b: Corners) -> float:
    """Intersection over union of two boxes; 0 where one is empty."""
    size = np.maximum(np.minimum(a[1], b[1]) - np.maximum(a[0], b[0]), 0)
    common = size[0] * size[1]
    areas = [(high - low)[0] * (high - low)[1] for low, high in (a, b)]
    total = areas[0] + areas[1] - common
    return float(common / total) if min(areas) > 0 and common > 0 and total > 0 else 0.0
