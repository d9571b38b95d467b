"""MaxPoolIndices and MaxUnpool: where the largest value of each window is, and the way back."""

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
from mdlc.compiler.op import Cost, Op, Sample, random_array
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.pad import Pad
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.scatter_elements import ScatterElements
from mdlc.compiler.types import Array, DType, TensorType


@dataclass(frozen=True)
class MaxPoolIndices(Op):
    """The position in x [N, C, ...] (int64) of the largest value of every window, the first of
    equals.

    Attributes:
        pads: begins, then ends.
        columns: positions count along the last axis slowest (ONNX's storage_order 1).

    MaxUnpool is imported as values scattered into zeros.

    Sources: ONNX specification, operators MaxPool and MaxUnpool.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    ceil_mode: bool = False
    columns: bool = False

    onnx: ClassVar[tuple[str, ...]] = ("MaxUnpool",)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x, indices = n.input(0), n.input(1)
        kernel = n.attr("kernel_shape")
        rank = len(kernel)
        if len(x.shape) != rank + 2 or indices.shape != x.shape:
            raise n.error(f"a window of {list(kernel)} and {indices.type} do not fit {x.type}")
        strides, pads = n.attr("strides", (1,) * rank), n.attr("pads", (0,) * (2 * rank))
        shape = (
            *x.shape[:2],
            *(
                (x.shape[2 + a] - 1) * strides[a] - pads[a] - pads[rank + a] + kernel[a]
                for a in range(rank)
            ),
        )
        empty = constant(np.zeros(math.prod(shape), x.type.dtype.numpy))
        flat = [n.make(Reshape((x.type.size,)), each) for each in (indices, x)]
        y = n.make(Reshape(shape), n.make(ScatterElements(0), empty, *flat))
        wanted = n.optional_const(2)
        if wanted is None or tuple(wanted) == shape:
            return y
        more = tuple(int(w) - own for w, own in zip(wanted, shape, strict=True))
        return n.make(Pad((0,) * len(shape), more), y)

    def infer(self, *inputs: TensorType) -> TensorType:
        x = inputs[0]
        rank = len(self.kernel)
        if x.rank != rank + 2 or not 1 <= rank <= 3:
            raise MdlcError(f"a window of {list(self.kernel)} does not fit {x}")
        lengths = []
        for a, size in enumerate(x.shape[2:]):
            extent = (self.kernel[a] - 1) * self.dilations[a] + 1
            free, step = size + self.pads[a] + self.pads[rank + a] - extent, self.strides[a]
            if free < 0:
                raise MdlcError(f"a window of {list(self.kernel)} does not fit {x}")
            count = free // step + 1
            # As in Window.output_size: none that starts in the trailing padding.
            count += self.ceil_mode and free % step > 0 and count * step < size + self.pads[a]
            lengths.append(count)
        return TensorType((*x.shape[:2], *lengths), DType.I64)

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0]
        shape = self.infer(TensorType(x.shape, DType.from_numpy(x.dtype))).shape
        rank = len(self.kernel)
        numbers = np.arange(x[0, 0].size, dtype=np.int64).reshape(
            x.shape[2:], order="F" if self.columns else "C"
        )
        planes = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *(1,) * rank)
        best, found = np.empty(shape, x.dtype), np.zeros(shape, np.int64)
        seen = np.zeros(shape, np.bool_)
        for tap in itertools.product(*map(range, self.kernel)):
            places = [
                np.arange(count) * stride - pad + t * dilation
                for count, stride, pad, t, dilation in zip(
                    shape[2:], self.strides, self.pads[:rank], tap, self.dilations, strict=True
                )
            ]
            inside = [(p >= 0) & (p < x.shape[2 + a]) for a, p in enumerate(places)]
            clipped = [np.clip(p, 0, x.shape[2 + a] - 1) for a, p in enumerate(places)]
            at: tuple[Any, ...] = (..., *np.ix_(*clipped))
            value = x[at]
            counts = np.logical_and.reduce(np.meshgrid(*inside, indexing="ij"))
            better = counts & (~seen | (value > best))
            best = np.where(better, value, best)
            found = np.where(better, numbers[np.ix_(*clipped)], found)
            seen |= better
        return np.asarray(found + planes * x[0, 0].size)

    def follows(self, inputs: Sequence[TensorType], index: int, axis: int) -> int | None:
        return None

    def cost(self, inputs: Sequence[TensorType], output: TensorType) -> Cost:
        return Cost(output.size * math.prod(self.kernel), inputs[0].nbytes + output.nbytes)

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = np.round(random_array(1, 2, 3, 7, 8, low=-5, high=5))
        return (
            Sample(cls((3, 2), (2, 2), (1, 0, 1, 1), (1, 1)), (x,), label="padded"),
            Sample(cls((2, 3), (2, 3), (0,) * 4, (2, 1), True, True), (x,), label="ceil"),
            Sample(cls((3,), (2,), (1, 1), (1,)), (x[:, :, 0],), label="1d"),
            Sample(cls((2, 2, 2), (1, 2, 2), (0,) * 6, (1, 1, 1)), (x[:, None],), label="3d"),
            Sample(cls((2, 2), (2, 2), (0,) * 4, (1, 1)), (x.astype(np.int8),), label="i8"),
            Sample(cls((7, 8), (1, 1), (0,) * 4, (1, 1)), (x[:1, :1],), label="whole"),
        )
