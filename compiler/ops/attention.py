"""Attention: softmax(scale * q k' + masks) v for every head, its operands strided views."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.op import Cost, Op, Sample, random_array
from mdlc.compiler.types import Array, TensorType
from mdlc.compiler.values import Values
from mdlc.compiler.words import counted


@dataclass(frozen=True)
class Strided:
    """Where the elements of an operand lie among those of a tensor, in the order of its indices.

    Attributes:
        offset: the first one; strides: elements from one index to the next along each axis.
    """

    offset: int
    strides: tuple[int, ...]

    @staticmethod
    def dense(shape: Sequence[int]) -> Strided:
        """All of a tensor."""
        return Strided(0, tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape))))

    def last(self, shape: Sequence[int]) -> int:
        """The largest place of an element of an operand."""
        return self.offset + sum(
            (count - 1) * step for count, step in zip(shape, self.strides, strict=True)
        )

    def of(self, value: Array, shape: Sequence[int]) -> Array:
        """The operand, read only."""
        flat = np.ascontiguousarray(value).reshape(-1)[self.offset :]
        steps = [step * flat.itemsize for step in self.strides]
        return np.lib.stride_tricks.as_strided(flat, tuple(shape), steps, writeable=False)


@dataclass(frozen=True)
class Attention(Op):
    """y = softmax(scale * q k' + masks) v, the softmax over keys, in every head.

    Inputs: the tensors that q [batch, rows, depth], k [batch, keys, depth], v [batch, keys,
    columns] and masks [batch, rows, keys] are strided views of, any of them perhaps the same.
    `batch` are several axes: images, windows, heads. Elements of a row of q, v and masks touch;
    those of k touch along keys or depth. A stride of 0 repeats.

    Output: [batch, rows, columns] with its axes in the order `perm`, columns last, so that heads
    may stand side by side.

    Source: Vaswani et al., Attention Is All You Need (arXiv 1706.03762), formula 1.
    """

    batch: tuple[int, ...]
    rows: int
    keys: int
    depth: int
    columns: int
    scale: float
    q: Strided
    k: Strided
    v: Strided
    masks: tuple[Strided, ...]
    perm: tuple[int, ...]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the operands."""
        q, k, v = (self.rows, self.depth), (self.keys, self.depth), (self.keys, self.columns)
        masks = [(self.rows, self.keys)] * len(self.masks)
        return [(*self.batch, *each) for each in (q, k, v, *masks)]

    @property
    def operands(self) -> tuple[Strided, ...]:
        """Where they lie."""
        return (self.q, self.k, self.v, *self.masks)

    @property
    def words(self) -> str:
        heads = counted(math.prod(self.batch), "head")
        masks = f", {counted(len(self.masks), 'mask')}" if self.masks else ""
        return (
            f"Attention, {heads}, {counted(self.rows, 'query') if self.rows == 1 else ''}"
            f"{'' if self.rows == 1 else f'{self.rows} queries'} of {self.depth}, "
            f"{counted(self.keys, 'key')}, values of {self.columns}, scale {self.scale:g}{masks}"
        )

    @property
    def output(self) -> Strided:
        """Where [batch, rows, columns] lie in the output."""
        shape = (*self.batch, self.rows, self.columns)
        own = Strided.dense([shape[axis] for axis in self.perm]).strides
        return Strided(0, tuple(own[self.perm.index(axis)] for axis in range(len(shape))))

    def infer(self, *inputs: TensorType) -> TensorType:
        if len(inputs) != len(self.operands) or len({each.dtype for each in inputs}) != 1:
            raise MdlcError(f"attention does not take {[str(each) for each in inputs]}")
        for source, view, shape in zip(inputs, self.operands, self.shapes, strict=True):
            touches = 1 in view.strides[-2:] if view is self.k else view.strides[-1] == 1
            outside = view.last(shape) >= source.size or min(view.offset, *view.strides) < 0
            if len(view.strides) != len(shape) or not touches or outside:
                raise MdlcError(f"{view} of {list(shape)} is no view of {source}")
        shape = (*self.batch, self.rows, self.columns)
        if sorted(self.perm) != list(range(len(shape))) or self.perm[-1] != len(shape) - 1:
            raise MdlcError(f"{list(self.perm)} does not permute heads and rows of {list(shape)}")
        return TensorType(tuple(shape[axis] for axis in self.perm), inputs[0].dtype)

    def reference(self, *inputs: Array) -> Array:
        each = zip(self.operands, inputs, self.shapes, strict=True)
        q, k, v, *masks = (view.of(x, shape).astype(np.float64) for view, x, shape in each)
        scores = q @ k.swapaxes(-1, -2) * self.scale + sum(masks)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        y = scores / scores.sum(-1, keepdims=True) @ v
        return np.ascontiguousarray(y.transpose(self.perm).astype(inputs[0].dtype))

    def value_bounds(self, node: Node, inputs: Sequence[Values]) -> Values:
        return inputs[2].together()  # a mean of values

    def cost(self, inputs: Sequence[TensorType], output: TensorType) -> Cost:
        scores = math.prod(self.batch) * self.rows * self.keys
        read = sum(each.nbytes for each in dict.fromkeys(inputs))
        return Cost(scores * (self.depth + self.columns), read + output.nbytes)

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        def plain(label: str, batch: tuple[int, ...], *sizes: int, masks: int = 0) -> Sample:
            rows, keys, depth, columns = sizes
            shapes = [(rows, depth), (keys, depth), (keys, columns)] + [(rows, keys)] * masks
            whole = [(*batch, *shape) for shape in shapes]
            op = _attention(batch, sizes, 0.4, [Strided.dense(shape) for shape in whole])
            values = [random_array(i, *shape, low=-3, high=3) for i, shape in enumerate(whole)]
            return Sample(op, tuple(values), label=label)

        # One tensor [rows, 3, heads, 8] as a linear layer gives it, heads side by side again.
        joined = random_array(1, 19, 3, 2, 8, low=-3, high=3)
        parts = [Strided(part * 16, (8, 48, 1)) for part in range(3)]
        heads = _attention((2,), (19, 19, 8, 8), 0.35, parts, (1, 0, 2))
        # Keys [depth, keys], a mask for all heads and one for all rows, with hidden keys.
        mask = np.where(random_array(3, 5, 21) > 0.5, -np.inf, 0).astype(np.float32)
        mask[:, 0] = 0
        views = [
            Strided(0, (90, 30, 6, 1)),
            Strided(0, (378, 126, 1, 21)),
            Strided(0, (441, 147, 7, 1)),
            Strided(0, (0, 0, 21, 1)),
            Strided(0, (21, 0, 0, 1)),
        ]
        turned = _attention((2, 3), (5, 21, 6, 7), -1.0, views, (0, 2, 1, 3))
        shapes = ((2, 3, 5, 6), (2, 3, 6, 21), (2, 3, 21, 7))
        arrays = [random_array(i, *shape) for i, shape in enumerate(shapes)]
        return (
            Sample(heads, (joined, joined, joined), label="heads"),
            Sample(turned, (*arrays, mask, random_array(4, 2, 21)), (3,), "masks"),
            plain("long", (3,), 37, 130, 16, 20),
            plain("short", (2, 2), 3, 2, 3, 3, masks=1),
            plain("one", (1,), 1, 1, 1, 1),
        )


def _attention(
    batch: tuple[int, ...],
    sizes: Sequence[int],
    scale: float,
    views: Sequence[Strided],
    perm: tuple[int, ...] = (),
) -> Attention:
    """Of sizes (rows, keys, depth, columns) and views of q, k, v and masks."""
    rows, keys, depth, columns = sizes
    q, k, v, *masks = views
    order = perm or tuple(range(len(batch) + 2))
    return Attention(batch, rows, keys, depth, columns, scale, q, k, v, tuple(masks), order)
