"""Slice: a regular part of a tensor (Split is several)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node, make
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import LayoutRule, OnnxForm, Op, Sample, normalize_axis, random_array
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.types import Array, TensorType


def taken_of(length: int, start: int, end: int, step: int) -> range:
    """The indices that ONNX's Slice takes of an axis, by a step that is not 0.

    Negative bounds count from the end, and what is outside is cut; unlike Python's slices, one
    backward from before the beginning starts at the first entry.
    """
    start, end = (at + length if at < 0 else at for at in (start, end))
    low, high = (-1, length - 1) if step < 0 else (0, length)
    found = range(min(max(start, 0), high), min(max(end, low), high), step)
    return found if length else range(0)


@dataclass(frozen=True)
class Slice(Op):
    """y[i] = x[starts + i * steps] on every axis.

    Attributes:
        starts: first index taken, one per axis; lengths: how many; steps: distance, any but 0.

    Sources: ONNX specification, operators Slice and Split.
    """

    starts: tuple[int, ...]
    lengths: tuple[int, ...]
    steps: tuple[int, ...]

    onnx: ClassVar[tuple[str, ...]] = ("Slice", "Split")
    layout_rule: ClassVar[LayoutRule] = LayoutRule.FOLLOWS

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node | Sequence[Node]:
        return cls._split(n) if n.op_type == "Split" else cls._slice(n)

    @classmethod
    def along(cls, shape: Sequence[int], axis: int, start: int, length: int) -> Slice:
        """A range of one axis and all of the others."""
        starts, lengths = [0] * len(shape), list(shape)
        starts[axis], lengths[axis] = start, length
        return cls(tuple(starts), tuple(lengths), (1,) * len(shape))

    @classmethod
    def _slice(cls, n: OnnxNode) -> Node:
        x = n.input(0)
        rank = len(x.shape)
        if n.opset < 10:
            first, last = n.attr("starts"), n.attr("ends")
            axes, steps = n.attr("axes"), None
        elif cls._moves_at_run_time(n):
            from mdlc.compiler.ops.span import slice_at_run_time  # it is made of slices

            return slice_at_run_time(n)
        else:
            first, last = n.const(1).tolist(), n.const(2).tolist()
            given, stride = n.optional_const(3), n.optional_const(4)
            axes = None if given is None else given.tolist()
            steps = None if stride is None else stride.tolist()
        axes = range(len(first)) if axes is None else [normalize_axis(int(a), rank) for a in axes]
        steps = [1] * len(first) if steps is None else steps
        starts, lengths, strides = [0] * rank, list(x.shape), [1] * rank
        for axis, start, end, step in zip(axes, first, last, steps, strict=True):
            if step == 0:
                raise n.error(f"step 0 on axis {axis}")
            taken = taken_of(x.shape[axis], int(start), int(end), int(step))
            starts[axis], lengths[axis], strides[axis] = taken.start, len(taken), int(step)
        if 0 in lengths:  # no elements: known
            return constant(np.empty(lengths, x.type.dtype.numpy), n.outputs[0])
        return n.make(cls(tuple(starts), tuple(lengths), tuple(strides)), x)

    @staticmethod
    def _moves_at_run_time(n: OnnxNode) -> bool:
        """Whether some bound or step is computed, or counts from an end that is; axes are known."""
        if n.has(3) and n.input(3).constant is None:
            return False
        computed = [n.has(i) and n.input(i).constant is None for i in (1, 2, 4)]
        if any(computed) or not n.counts(0):
            return any(computed)
        first, last, steps = n.const(1), n.const(2), n.optional_const(4)
        simple = (first == 0).all() and (last >= 0).all() and (steps is None or (steps == 1).all())
        axes = n.optional_const(3)
        rank = len(n.input(0).shape)
        taken = range(len(first)) if axes is None else [int(a) % rank for a in axes]
        return not simple and any(axis in n.counts(0) for axis in taken)

    @classmethod
    def _split(cls, n: OnnxNode) -> Sequence[Node]:
        x = n.input(0)
        axis = normalize_axis(n.attr("axis", 0), len(x.shape))
        sizes = n.attr("split") if n.opset < 13 else n.optional_const(1)
        count = len(n.outputs)
        if sizes is None:
            piece = -(-x.shape[axis] // count)
            sizes = [piece] * (count - 1) + [x.shape[axis] - piece * (count - 1)]
        lengths = [int(size) for size in sizes]
        if sum(lengths) != x.shape[axis] or min(lengths) < 0 or len(lengths) < count:
            raise n.error(f"pieces {lengths} do not make up axis {axis} of {x.type}")
        ends = np.cumsum(lengths).tolist()
        return [
            n.make(cls.along(x.shape, axis, end - length, length), x, output=i)
            if length
            else constant(np.empty((*x.shape[:axis], 0, *x.shape[axis + 1 :]), x.type.dtype.numpy))
            for i, (end, length) in enumerate(zip(ends, lengths, strict=True))
        ][:count]

    def single_range(self, shape: Sequence[int]) -> tuple[int, int] | None:
        """(axis, start) if one axis alone is cut, with step 1; None otherwise."""
        cut = [i for i, length in enumerate(self.lengths) if length != shape[i]]
        if len(cut) != 1 or any(step != 1 for step in self.steps):
            return None
        return cut[0], self.starts[cut[0]]

    def infer(self, *inputs: TensorType) -> TensorType:
        x = inputs[0]
        fits = len(self.starts) == len(self.lengths) == len(self.steps) == x.rank and all(
            length == 0
            or (0 <= start < size and 0 <= start + (length - 1) * step < size and length > 0)
            for start, length, step, size in zip(
                self.starts, self.lengths, self.steps, x.shape, strict=True
            )
        )
        if not fits:
            raise MdlcError(f"slice {self} reaches outside {x}")
        return TensorType(self.lengths, x.dtype, quant=x.quant)

    def channel_map(
        self, inputs: Sequence[TensorType], output: TensorType
    ) -> tuple[Array | None, ...] | None:
        if output.rank < 2 or self.steps[1] != 1:
            return None
        return (np.arange(self.lengths[1]) + self.starts[1],)

    def on_channels(
        self, inputs: Sequence[Node], kept: Array, kept_inputs: Sequence[Array], name: str
    ) -> Node:
        starts, lengths = list(self.starts), list(self.lengths)
        starts[1] = int(kept_inputs[0][: self.starts[1]].sum())
        lengths[1] = int(kept.sum())
        return make(replace(self, starts=tuple(starts), lengths=tuple(lengths)), *inputs, name=name)

    def reference(self, *inputs: Array) -> Array:
        index = tuple(
            np.arange(length) * step + start
            for start, length, step in zip(self.starts, self.lengths, self.steps, strict=True)
        )
        result: Array = inputs[0][np.ix_(*index)] if index else inputs[0]
        return result

    def moves(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return (0,)

    def is_identity(self, x: TensorType) -> bool:
        return all(step > 0 for step, length in zip(self.steps, x.shape, strict=True) if length > 1)

    def follows(self, inputs: Sequence[TensorType], index: int, axis: int) -> int | None:
        return axis if (self.starts[axis], self.steps[axis]) == (0, 1) else None

    def to_onnx(self) -> OnnxForm:
        ends = []
        for start, length, step in zip(self.starts, self.lengths, self.steps, strict=True):
            end = start + length * step
            ends.append(end if end >= 0 else np.iinfo(np.int64).min)
        extra = (
            np.array(self.starts, np.int64),
            np.array(ends, np.int64),
            np.arange(len(ends), dtype=np.int64),
            np.array(self.steps, np.int64),
        )
        return "Slice", {}, extra

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = random_array(1, 2, 20, 6, 7)
        whole = x.shape
        return (
            Sample(cls.along(whole, 1, 4, 8), (x,), label="channels"),
            Sample(cls.along(whole, 2, 1, 3), (x,), label="rows"),
            Sample(cls.along(whole, 0, 1, 1), (x,), label="batch"),
            Sample(cls((0, 0, 1, 0), (2, 20, 2, 4), (1, 1, 2, 2)), (x,), label="strided"),
            Sample(cls((1, 19, 5, 6), (2, 4, 6, 7), (-1, -5, -1, -1)), (x,), label="backward"),
        )
