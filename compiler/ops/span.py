"""Span: the indices that a slice takes of an axis, where its bounds are known at run time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mdlc.compiler.counts import Counted, Part, bound_of, count_of, part
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import Length, OnnxNode
from mdlc.compiler.op import Sample, normalize_axis
from mdlc.compiler.ops.add import Add
from mdlc.compiler.ops.cast import Cast
from mdlc.compiler.ops.concat import Concat
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.gather import Gather
from mdlc.compiler.ops.less import Less
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.slice import Slice, taken_of
from mdlc.compiler.ops.sub import Sub
from mdlc.compiler.ops.where import Where
from mdlc.compiler.types import Array, DType, TensorType


@dataclass(frozen=True)
class Span(Counted):
    """The indices start, start + step, ... before end, of an axis of so many; then 0.

    Its inputs are int64 [1]: start, end, step and the axis's length. Negative ones count from the
    end, and what is outside is cut, see `taken_of`; a step of 0 takes nothing. A Slice whose bounds
    come at run time is a Gather at these.

    Source: ONNX specification, operator Slice.
    """

    def parts(self, inputs: Sequence[TensorType]) -> tuple[Part, ...]:
        return (Part(0, (self.bound,), 0),)

    def count(self, found: Node) -> Node:
        first, count, step, _ = found.inputs
        known = [v.constant is not None and int(v.constant[0]) for v in (first, step)]
        # Of a list that has as many entries as another: one count for both.
        same = known == [0, 1] and bound_of(count) == self.bound
        return count if same else count_of(found)

    def infer(self, *inputs: TensorType) -> TensorType:
        if (
            len(inputs) != 4
            or self.bound < 1
            or any((x.shape, x.dtype) != ((1,), DType.I64) for x in inputs)
        ):
            raise MdlcError(f"no span of {self.bound} between {', '.join(map(str, inputs))}")
        return TensorType((self.bound + 1,), DType.I64)

    def reference(self, *inputs: Array) -> Array:
        start, end, step, length = (int(x[0]) for x in inputs)
        taken = taken_of(length, start, end, step) if step else range(0)
        found = np.array(taken[: self.bound], np.int64)
        return np.concatenate([found, np.zeros(self.bound - len(found), np.int64), [len(found)]])

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        far = np.iinfo(np.int64)
        drawn = (
            ("some", 9, (2, 7, 1, 9)), ("strided", 5, (1, far.max, 3, 9)),
            ("backward", 9, (-1, far.min, -2, 9)), ("bounded", 3, (far.min, far.max, 1, 9)),
            ("none", 4, (7, 2, 1, 9)), ("step_0", 4, (0, 4, 0, 9)), ("far", 4, (1, 9, far.max, 9)),
            ("before", 4, (-11, far.min, -1, 9)),
        )  # fmt: skip
        return tuple(
            Sample(cls(bound), tuple(np.array([v], np.int64) for v in values), label=label)
            for label, bound, values in drawn
        )


def slice_at_run_time(n: OnnxNode) -> Node:
    """A Slice of opset 10 or later with bounds or steps that are computed."""
    x, given = n.input(0), n.optional_const(3)
    first, last = n.input(1), n.input(2)
    axes = range(first.type.size) if given is None else given.reshape(-1)
    ones = constant(np.ones(len(axes), np.int64))
    steps = n.input(4) if n.has(4) else ones
    if any(values.type.size != len(axes) for values in (first, last, steps)):
        raise n.error(f"{len(axes)} axes, but bounds are {first.type} and {last.type}")
    declared = n.declared[0] if n.declared else None
    for index, given_axis in enumerate(axes):
        axis = normalize_axis(int(given_axis), len(x.shape))
        start, end, step = (_entry(n, values, index) for values in (first, last, steps))
        counts = n.counts_of(x)
        length = counts.get(axis) or constant(np.array([x.shape[axis]], np.int64))
        known = [v.constant for v in (start, end, step, length)]
        if all(value is not None for value in known):
            s, e, d, size = (int(v[0]) for v in known if v is not None)
            if d == 0:
                raise n.error(f"step 0 on axis {axis}")
            taken = taken_of(size, s, e, d)
            if len(taken) == 0:
                shape = (*x.shape[:axis], 0, *x.shape[axis + 1 :])
                return constant(np.empty(shape, x.type.dtype.numpy), n.outputs[0])
            starts, lengths, strides = [0] * len(x.shape), list(x.shape), [1] * len(x.shape)
            starts[axis], lengths[axis], strides[axis] = taken.start, len(taken), d
            x = n.make(Slice(tuple(starts), tuple(lengths), tuple(strides)), x)
            continue
        if declared is not None and 0 < declared[axis] <= x.shape[axis]:
            # A window that moves: as many entries at any time.
            found = n.make(Span(declared[axis]), start, end, step, length)
            places = n.make(Slice.along(found.shape, 0, 0, declared[axis]), found)
        else:
            found = n.make(Span(n.bound(0, x.shape[axis])), start, end, step, length)
            places = part(found, 0)
        heeded = x if n.lengths is None else n.lengths.whole(x, axis)
        x = n.make(Gather(axis), heeded, places)
    return x


def _entry(n: OnnxNode, values: Node, index: int) -> Node:
    """Entry `index` of a vector: int64 [1]."""
    if values.constant is not None:
        return constant(values.constant.reshape(-1)[index : index + 1].astype(np.int64))
    if isinstance(values.op, Concat):
        at = index
        for source in values.inputs:
            if at < source.type.size:
                return _entry(n, source, at)
            at -= source.type.size
    one = n.make(Slice.along((values.type.size,), 0, index, 1), n.make(
        Reshape((values.type.size,)), values))  # fmt: skip
    return one if one.type.dtype == DType.I64 else n.make(Cast(DType.I64), one)


def opened(n: OnnxNode, y: Node, lengths: Mapping[int, Length]) -> Node:
    """A tensor of which, along some axes, only as many entries count as a shape says.

    Args:
        y: of the shape with bounds.
        lengths: by axis, what of the shape depends on data.
    """
    for axis, length in lengths.items():
        counts = n.counts_of(y)
        # Two counts of one bound are two ways to count the same, such as NonZero's and a sum.
        if axis in counts and length.most == y.shape[axis]:
            continue
        assert length.count is not None
        if axis in counts:
            raise n.error(f"its length along axis {axis} depends on data in two ways")
        found = span_of(n, length.count, length.most)
        y = n.make(Gather(axis), y, part(found, 0))
    return y


def span_of(n: OnnxNode, count: Node, most: int) -> Node:
    """The indices 0, 1, ... before a count of at most so many."""
    first, step, length = (constant(np.array([value], np.int64)) for value in (0, 1, most))
    return n.make(Span(n.bound(0, most)), first, count, step, length)


def concatenated(
    n: OnnxNode, inputs: Sequence[Node], counts: Sequence[Node | None], axis: int
) -> Node:
    """Tensors one behind the other, of which only some entries count along the axis.

    Args:
        counts: of each input; None where all of its entries count.
    """
    y, count = inputs[0], counts[0]
    for x, more in zip(inputs[1:], counts[1:], strict=True):
        room, added = y.shape[axis], x.shape[axis]
        first = _entries(count, room)
        total = n.make(Add(), first, _entries(more, added))
        places = part(span_of(n, total, room + added), 0)
        # Behind the first ones, what stands behind the room for them.
        gap = n.make(Sub(), _entries(None, room), first)
        moved = n.make(Add(), places, gap)
        places = n.make(Where(), n.make(Less(), places, first), places, moved)
        assert n.lengths is not None
        both = [n.lengths.whole(each, axis) for each in (y, x)]
        y = n.make(Gather(axis), n.make(Concat(axis), *both), places)
        count = n.lengths.of(y)[axis]
    return y


def _entries(count: Node | None, room: int) -> Node:
    return constant(np.array([room], np.int64)) if count is None else count
