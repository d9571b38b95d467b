"""Col2Im: windows that were laid out as columns, added up into images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Cost, OnnxForm, Op, Sample, random_array
from mdlc.compiler.types import Array, TensorType


@dataclass(frozen=True)
class Col2Im(Op):
    """y [N, C, image...] = the sums of x [N, C * taps, windows] at the places of their taps.

    Attributes:
        image, kernel, strides, dilations: one for each axis; pads: begins, then ends.

    Source: ONNX specification, operator Col2Im.
    """

    image: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]

    onnx: ClassVar[tuple[str, ...]] = ("Col2Im",)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        image, kernel = (tuple(int(d) for d in n.const(i)) for i in (1, 2))
        rank = len(image)
        op = cls(
            image,
            kernel,
            n.attr("strides", (1,) * rank),
            n.attr("pads", (0,) * (2 * rank)),
            n.attr("dilations", (1,) * rank),
        )
        return n.make(op, n.input(0))

    @property
    def windows(self) -> tuple[int, ...]:
        """How many windows fit along each axis."""
        rank = len(self.image)
        return tuple(
            (d + self.pads[a] + self.pads[rank + a] - self.dilations[a] * (self.kernel[a] - 1) - 1)
            // self.strides[a]
            + 1
            for a, d in enumerate(self.image)
        )

    def infer(self, *inputs: TensorType) -> TensorType:
        x = inputs[0]
        rank, taps = len(self.image), math.prod(self.kernel)
        lengths = (len(self.kernel), len(self.strides), len(self.dilations), len(self.pads) // 2)
        fits = x.rank == 3 and set(lengths) == {rank} and taps and x.shape[1] % taps == 0
        if not fits or min(self.windows) < 1 or x.shape[2] != math.prod(self.windows):
            raise MdlcError(f"{x} is not of windows {list(self.kernel)} of {list(self.image)}")
        return TensorType((x.shape[0], x.shape[1] // taps, *self.image), x.dtype)

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0]
        taps = math.prod(self.kernel)
        columns = x.reshape(x.shape[0], x.shape[1] // taps, *self.kernel, *self.windows)
        margins = [
            (self.windows[a] - 1) * self.strides[a] + (self.kernel[a] - 1) * self.dilations[a] + 1
            for a in range(len(self.image))
        ]
        ends = [d + pad for d, pad in zip(self.image, self.pads, strict=False)]
        sizes = [max(each) for each in zip(margins, ends, strict=True)]
        total = np.zeros((*columns.shape[:2], *sizes), x.dtype)
        for tap in itertools.product(*map(range, self.kernel)):
            axes = zip(tap, self.dilations, self.windows, self.strides, strict=True)
            at: list[Any] = [slice(t * d, t * d + (w - 1) * s + 1, s) for t, d, w, s in axes]
            of: list[Any] = [slice(None), slice(None), *tap]
            total[(slice(None), slice(None), *at)] += columns[tuple(of)]
        inside = tuple(slice(self.pads[a], self.pads[a] + d) for a, d in enumerate(self.image))
        return np.ascontiguousarray(total[:, :, *inside])

    def follows(self, inputs: Sequence[TensorType], index: int, axis: int) -> int | None:
        return 0 if axis == 0 else None

    def cost(self, inputs: Sequence[TensorType], output: TensorType) -> Cost:
        return Cost(inputs[0].size, inputs[0].nbytes + output.nbytes)

    def to_onnx(self) -> OnnxForm:
        attributes = {"strides": self.strides, "pads": self.pads, "dilations": self.dilations}
        extra = np.array(self.image, np.int64), np.array(self.kernel, np.int64)
        return "Col2Im", attributes, extra

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        plain = cls((5, 5), (1, 5), (1, 1), (0,) * 4, (1, 1))
        full = cls((5, 6), (2, 3), (2, 1), (1, 0, 1, 2), (2, 1))
        line = cls((7,), (3,), (2,), (1, 1), (1,))
        volume = cls((3, 4, 5), (1, 2, 2), (1, 2, 1), (0,) * 6, (1, 1, 1))
        return tuple(
            Sample(op, (random_array(1, 2, 3 * math.prod(op.kernel), math.prod(op.windows)),),
                   label=label)
            for op, label in ((plain, "rows"), (full, "padded"), (line, "1d"), (volume, "3d"))
        )  # fmt: skip
