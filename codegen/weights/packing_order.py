"""Where a kernel's packing puts every weight, so that a decoder can write them there in order.

The layout is not described by the kernels: it is read off what they pack. Weights replaced by
their own numbers come out of `Kernel.pack` in packed order, with zeros where it pads. The result
is a handful of Rows, each a loop nest of runs of weights with zeros between them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mdlc.codegen.isa.base import Isa
from mdlc.codegen.kernel import Step, TransformedFilters
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.conv_transpose2d import ConvTranspose2D
from mdlc.compiler.ops.dense import Dense
from mdlc.compiler.types import Array

FIELD = "weights"
# A layout of more pieces than this is no regular packing.
_MAX_GROUPS = 1 << 14
_FEW = 32
_BASE = 1 << 12


@dataclass(frozen=True)
class Rows:
    """Runs of weights in packed order: panels of blocks of rows.

    Attributes:
        values: weights of a row, of consecutive output channels unless channels do not matter.
        row_zeros: padding behind each row; block_zeros: further padding behind each block.
        first: output channel of the first weight; that of panel p is first + p * values.
    """

    panels: int
    blocks: int
    rows: int
    values: int
    row_zeros: int
    block_zeros: int
    first: int

    @property
    def weights(self) -> int:
        """Weights in all rows."""
        return self.panels * self.blocks * self.rows * self.values


@dataclass(frozen=True)
class Layout:
    """How one layer's weights are packed.

    Attributes:
        rows: the packed array, or where weights are transformed, one element of every transform.
        order: for each weight as decoded, its index in the weights as they are in the model.
        filters: where transforms of filters are packed, how, or None. Rows are then the input
            channels of one phase of a block of filters, each read tap by tap, for every phase.
        channels: output channels.
    """

    rows: tuple[Rows, ...]
    order: Array
    filters: TransformedFilters | None
    channels: int


def output_channels(node: Node) -> Array:
    """For every weight of a layer, the output channel that it adds to."""
    shape = node.inputs[1].shape
    if isinstance(node.op, ConvTranspose2D):
        groups, per_group = node.op.groups, shape[1]
        group = np.arange(shape[0]) // (shape[0] // groups)
        found = group[:, None] * per_group + np.arange(per_group)[None, :]
        return np.broadcast_to(found.reshape(shape[0], per_group, 1, 1), shape)
    own = np.arange(shape[0]).reshape(-1, *(1,) * (len(shape) - 1))
    return np.broadcast_to(own, shape)


def has_weights(step: Step) -> bool:
    """Whether a step packs constant float32 weights of a convolution or dense layer."""
    node = step.node
    if not isinstance(node.op, Conv2D | ConvTranspose2D | Dense) or FIELD not in step.weights:
        return False
    weights = node.inputs[1].constant
    packed = step.weights[FIELD]
    return weights is not None and weights.dtype == packed.dtype == np.float32 and weights.size > 0


def with_weights(node: Node, weights: Array) -> Node:
    """The same layer with other weights."""
    inputs = list(node.inputs)
    inputs[1] = constant(np.ascontiguousarray(weights, np.float32), node.inputs[1].name)
    return replace(node, inputs=tuple(inputs))


def trace_layout(step: Step, isa: Isa, *, by_channel: bool) -> Layout | None:
    """The layout of a step's packed weights, or None where it has no regular one.

    Args:
        by_channel: rows of consecutive output channels, for scales of channels; otherwise rows
            are as long as they can be.
    """
    node = step.node
    shape = node.inputs[1].shape
    channels = output_channels(node)
    filters = step.kernel.transformed(node, step.schedule, step.seen(isa))
    if filters is not None:
        return _of_filters(filters, shape)
    numbers = np.arange(math.prod(shape)).reshape(shape)

    def packed(values: Array) -> Array:
        """Whole numbers below 2^24 as they are packed."""
        found = step.kernel.repack(node, values, step.schedule, step.seen(isa))[FIELD]
        return np.rint(found).astype(np.int64)

    owner = packed(channels + 1) - 1
    index = packed(numbers // _BASE) * _BASE + packed(numbers % _BASE)
    valid = owner >= 0
    if not valid.any():
        return None
    if not valid[:1].all() or np.any(np.bincount(index[valid], minlength=1) > 1):
        return None
    if by_channel:
        rows = _rows(owner, valid, "channels")
        if rows is None or len(rows) > _FEW:  # channels one by one, as with vectors of one lane
            single = _rows(owner, valid, "none")
            rows = single if rows is None or (single and len(single) < len(rows)) else rows
    else:
        rows = _rows(owner, valid, "all")
    if rows is None:
        return None
    order = index[valid]
    left_out = np.ones(math.prod(shape), np.bool_)
    left_out[order] = False
    own = node.inputs[1].constant
    assert own is not None
    if own.reshape(-1)[left_out].any():  # zeros alone may stay away
        return None
    return Layout(tuple(rows), order, None, int(channels.max()) + 1)


def _of_filters(filters: TransformedFilters, shape: Sequence[int]) -> Layout:
    """Filters [M, C, kernel, kernel] block by block, phase by phase, channel by channel."""
    numbers = np.arange(math.prod(shape)).reshape(shape)
    rows, parts, first = [], [], 0
    phases = range(filters.stride)
    for count, width in filters.blocks:
        rows.append(Rows(count, 1, shape[1], width, 0, 0, first))
        for start in range(first, first + count * width, width):
            block = numbers[start : start + width]
            for row, column in itertools.product(phases, phases):
                phase = block[:, :, row :: filters.stride, column :: filters.stride]
                parts.append(phase.transpose(1, 2, 3, 0).reshape(-1))
        first += count * width
    return Layout(tuple(rows), np.concatenate(parts), filters, shape[0])


def _rows(owner: Array, valid: Array, join: str) -> list[Rows] | None:
    """Runs, gathered into loop nests.

    Args:
        join: which neighbours are one run: all, those of consecutive channels, or none.
    """
    starts = valid.copy()
    after = valid[:-1]
    if join != "all":
        after = after & (owner[1:] == owner[:-1] + 1) & (join == "channels")
    starts[1:] &= ~after
    at = np.flatnonzero(starts)
    ends = np.append(at[1:], len(owner))
    counted = np.concatenate([[0], np.cumsum(valid)])
    values = counted[ends] - counted[at]
    zeros = ends - at - values
    runs = np.stack([np.zeros_like(at) if join == "all" else owner[at], values, zeros], 1)
    fresh = np.flatnonzero(np.any(runs[1:] != runs[:-1], axis=1)) + 1
    firsts = np.concatenate([[0], fresh])
    if len(firsts) > _MAX_GROUPS:
        return None
    repeats = np.diff(np.append(firsts, len(runs)))
    groups = [
        (int(runs[i, 0]), int(runs[i, 1]), int(runs[i, 2]), int(n))
        for i, n in zip(firsts, repeats, strict=True)
    ]
    return _panels(_blocks(groups))


def _blocks(groups: list[tuple[int, int, int, int]]) -> list[Rows]:
    """Equal rows, the last of which may be followed by more zeros, as blocks; equal ones joined."""
    found: list[Rows] = []
    index = 0
    while index < len(groups):
        first, values, zeros, count = groups[index]
        extra = 0
        if index + 1 < len(groups):
            then = groups[index + 1]
            if then[:2] == (first, values) and then[2] > zeros and then[3] == 1:
                count, extra, index = count + 1, then[2] - zeros, index + 1
        index += 1
        block = Rows(1, 1, count, values, zeros, extra, first)
        if found and replace(found[-1], blocks=1) == block:
            found[-1] = replace(found[-1], blocks=found[-1].blocks + 1)
        else:
            found.append(block)
    return found


def _panels(blocks: list[Rows]) -> list[Rows]:
    """Equal blocks of channels that follow each other, joined."""
    found: list[Rows] = []
    for block in blocks:
        if found:
            last = found[-1]
            if replace(last, panels=1, first=last.first + last.panels * last.values) == block:
                found[-1] = replace(last, panels=last.panels + 1)
                continue
        found.append(block)
    return found
