"""Row-fused groups: neighbouring layers computed together in bands of rows.

Where a layer's output is larger than the caches, the next layer reads it back from memory. In a
group, a few rows of the last output are computed at a time, by all layers in turn, and of the
tensors between them only a window of rows exists: the rows that the next band needs, too, move to
its start. A MobileNet's expanded tensor never reaches memory that way, and the arena shrinks. No
row is computed twice but where threads share a group: each takes a strip of the last output.

A band is no special code: it is the same layer on fewer rows, with the padding that its rows see,
emitted by the layer's own kernel.

Source: layers fused by pyramids of rows, M. Alwani et al., "Fused-Layer CNN Accelerators" (2016),
with the overlap kept (their "reuse" model) instead of recomputed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mdlc.codegen.isa.base import Isa
from mdlc.codegen.kernel import Step
from mdlc.compiler.ir import Node, make
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.input import Input
from mdlc.compiler.types import DType, TensorType

# Layers of a group at most, and threads: each has a strip of its own in the code.
_LONGEST = 8
_MAX_STRIPS = 4
# Rows of the last output in a band that are tried.
_ROWS = (1, 2, 3, 4, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28)
# Cycles that a call on a band costs beside its work: borders of tiles, copies' heads.
_CALL = 400
# The least gain, as a share of the layers' cycles.
_WORTH = 0.01
# What a last band of fewer rows has to save, as a share of all that a group saves.
_RAGGED = 0.1
# Bytes a cycle from the second-level cache.
_L2_BYTES = 16


@dataclass(frozen=True)
class Part:
    """What one layer does in a band.

    Attributes:
        rows: output rows; taken: input rows; top, bottom: rows of padding among those it reads.
        source: its first input row in the window of that tensor; in the group's input for the
            first layer. target: likewise its first output row.
    """

    rows: int
    taken: int
    top: int
    bottom: int
    source: int
    target: int


@dataclass(frozen=True)
class Move:
    """Rows of a window that move to its start: the first, and how many."""

    first: int
    rows: int


@dataclass(frozen=True)
class Band:
    """One band, by layer: what it does (None: nothing), and what moves in its output's window."""

    parts: tuple[Part | None, ...]
    moves: tuple[Move | None, ...]


@dataclass(frozen=True)
class Bands:
    """Equal neighbouring bands.

    Attributes:
        count: how many; band: the first.
        steps: by layer, input and output rows from one band to the next; of windows 0.
    """

    count: int
    band: Band
    steps: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class RowGroup:
    """Steps first to last (inclusive) of a plan, computed in bands.

    Attributes:
        rows: of the last output, in a band; strips: parts that threads share.
    """

    first: int
    last: int
    rows: int
    strips: int = 1

    @property
    def indices(self) -> range:
        """The steps' indices."""
        return range(self.first, self.last + 1)


@dataclass(frozen=True)
class _Rows:
    """How a layer's output rows depend on its input rows."""

    height: int
    extent: int
    stride: int
    top: int

    @staticmethod
    def of(node: Node) -> _Rows:
        op = node.op
        assert isinstance(op, Conv2D)
        window = op.window(node.inputs[1].shape[2:])
        return _Rows(node.inputs[0].shape[2], window.extent[0], op.stride[0], op.pads[0])

    def first(self, row: int) -> int:
        """The first input row of an output row."""
        return max(0, row * self.stride - self.top)

    def end(self, row: int) -> int:
        """The input row behind those of the output row before `row`."""
        return min(self.height, (row - 1) * self.stride - self.top + self.extent)


def bands(nodes: Sequence[Node], rows: int, start: int, stop: int) -> list[Band]:
    """The bands that compute rows start to stop (exclusive) of the last node's output."""
    layers = [_Rows.of(node) for node in nodes]
    count = len(layers)
    done = [0] * count  # rows of every output that are computed, or not needed
    done[-1] = start
    for i in range(count - 1, 0, -1):
        done[i - 1] = layers[i].first(done[i])
    base = list(done)
    found = []
    for first in range(start, stop, rows):
        end = [0] * count
        end[-1] = min(first + rows, stop)
        for i in range(count - 1, 0, -1):
            end[i - 1] = max(done[i - 1], layers[i].end(end[i]))
        moves: list[Move | None] = [None] * count
        for i in range(count - 1):
            low = layers[i + 1].first(done[i + 1])
            done[i] = max(done[i], low)
            if low > base[i] and end[i] > low:
                if done[i] > low:
                    moves[i] = Move(low - base[i], done[i] - low)
                base[i] = low
        parts: list[Part | None] = []
        for i, layer in enumerate(layers):
            if end[i] <= done[i]:
                parts.append(None)
                continue
            begin, behind = layer.first(done[i]), layer.end(end[i])
            reach = (end[i] - 1) * layer.stride - layer.top + layer.extent
            parts.append(
                Part(
                    end[i] - done[i],
                    behind - begin,
                    max(0, layer.top - done[i] * layer.stride),
                    max(0, reach - layer.height),
                    begin - (base[i - 1] if i else 0),
                    done[i] - (base[i] if i < count - 1 else 0),
                )
            )
            done[i] = end[i]
        found.append(Band(tuple(parts), tuple(moves)))
    return found


def strips(nodes: Sequence[Node], group: RowGroup) -> list[list[Bands]]:
    """For each strip of the group, its bands, equal neighbours joined."""
    height = nodes[-1].shape[2]
    edges = [height * i // group.strips for i in range(group.strips + 1)]
    return [
        _joined(bands(nodes, group.rows, start, stop)) for start, stop in itertools.pairwise(edges)
    ]


def _joined(found: Sequence[Band]) -> list[Bands]:
    """Runs of bands that differ only by where they read the group's input and write its output."""
    joined: list[Bands] = []
    for band in found:
        if joined:
            last = joined[-1]
            steps = _distance(last.band, band, last.count)
            if steps is not None and (last.count == 1 or steps == last.steps):
                joined[-1] = Bands(last.count + 1, last.band, steps)
                continue
        joined.append(Bands(1, band, tuple((0, 0) for _ in band.parts)))
    return joined


def _distance(first: Band, later: Band, count: int) -> tuple[tuple[int, int], ...] | None:
    """Rows a band further, if `later` is `first` as many as `count` bands on; else None."""
    if first.moves != later.moves:
        return None
    steps = []
    for index, (one, two) in enumerate(zip(first.parts, later.parts, strict=True)):
        if one is None or two is None:
            if one is not two:
                return None
            steps.append((0, 0))
            continue
        source, target = two.source - one.source, two.target - one.target
        same = replace(two, source=one.source, target=one.target) == one
        inside = (index == 0 or not source) and (index == len(first.parts) - 1 or not target)
        if not same or not inside or source % count or target % count:
            return None
        steps.append((source // count, target // count))
    return tuple(steps)


def window_rows(nodes: Sequence[Node], group: RowGroup) -> list[int]:
    """Rows of the window of every layer's output but the last."""
    most = [1] * (len(nodes) - 1)
    for run in strips(nodes, group):
        for each in run:
            for i, part in enumerate(each.band.parts[:-1]):
                if part is not None:
                    most[i] = max(most[i], part.target + part.rows)
    return most


def band_node(node: Node, part: Part) -> Node:
    """A layer on the rows of a band."""
    op = node.op
    assert isinstance(op, Conv2D)
    _, left, _, right = op.pads
    images, channels, _, width = node.inputs[0].shape
    dtype = node.inputs[0].type.dtype
    x = make(Input((images, channels, part.taken, width), dtype), layout_of=node.inputs[0])
    operands = [x, *node.inputs[1:]]
    if op.residual:
        shape = (images, node.shape[1], part.rows, node.shape[3])
        operands[-1] = make(Input(shape), layout_of=node.inputs[-1])
    banded = replace(op, pads=(part.top, left, part.bottom, right))
    return make(banded, *operands, name=node.name, origin=node.origin, layout_of=node)


def band_step(step: Step, part: Part) -> Step:
    """The step on the rows of a band, its tensors pitched as those of the whole."""
    node = band_node(step.node, part)
    types: list[TensorType] = [node.inputs[0].type]
    if len(step.inputs) > 1:
        types.append(node.inputs[-1].type)
    inputs = [
        replace(view, type=kind, offset=0) for view, kind in zip(step.inputs, types, strict=True)
    ]
    return replace(
        step, node=node, inputs=tuple(inputs), output=replace(step.output, type=node.type, offset=0)
    )


def parts_of(nodes: Sequence[Node], group: RowGroup) -> list[list[Part]]:
    """By layer, what its bands do, each once but for the places."""
    found: list[dict[Part, None]] = [{} for _ in nodes]
    for run in strips(nodes, group):
        for each in run:
            for kinds, part in zip(found, each.band.parts, strict=True):
                if part is not None:
                    kinds[replace(part, source=0, target=0)] = None
    return [list(kinds) for kinds in found]


def find_row_groups(
    steps: Sequence[Step], whole: Sequence[bool], isa: Isa, threads: int
) -> list[RowGroup]:
    """The groups that save the most memory traffic, by dynamic programming over their ends.

    Args:
        steps: all steps of a plan.
        whole: for each step, whether its output must exist as a whole: an output of the
            network, read more than once, or part of another tensor.
    """
    found: list[RowGroup] = []
    start = 0
    while start < len(steps):
        stop = start + 1
        while stop < len(steps) and _joins(steps[stop - 1], steps[stop], whole[stop - 1]):
            stop += 1
        if stop - start > 1:
            found += _best_cut(steps, start, stop, isa, threads)
        start = stop
    return found


def _banded(step: Step) -> bool:
    op = step.node.op
    return (
        step.kernel.banded
        and isinstance(op, Conv2D)
        and step.node.shape[0] == 1
        and all(node.type.dtype is DType.F32 for node in (step.node, *step.node.inputs[1:]))
        and step.node.inputs[0].type.dtype in (DType.F32, DType.U8)
    )


def _joins(one: Step, two: Step, whole: bool) -> bool:
    """Whether `two` may follow `one` in a group, of which only the last layer has a residual."""
    return (
        not whole
        and _banded(one)
        and _banded(two)
        and two.node.inputs[0] is one.node
        and one.node not in two.node.inputs[1:]
        and not getattr(one.node.op, "residual", False)
    )


def _best_cut(
    steps: Sequence[Step], start: int, stop: int, isa: Isa, threads: int
) -> list[RowGroup]:
    cycles = {i: steps[i].cycles(isa) for i in range(start, stop)}
    best: list[tuple[float, list[RowGroup]]] = [(0.0, [])]
    for end in range(start + 1, stop + 1):
        options = [best[-1]]
        for begin in range(max(start, end - _LONGEST), end - 1):
            gain, group = _gain(steps, begin, end - 1, isa, threads)
            if gain > _WORTH * sum(cycles[i] for i in group.indices):
                before, groups = best[begin - start]
                options.append((before + gain, [*groups, group]))
        best.append(max(options, key=lambda option: option[0]))
    return best[-1][1]


def _gain(
    steps: Sequence[Step], first: int, last: int, isa: Isa, threads: int
) -> tuple[float, RowGroup]:
    """Cycles that a group saves, with its best number of rows."""
    nodes = [steps[i].node for i in range(first, last + 1)]
    layers = [_Rows.of(node) for node in nodes]
    height = nodes[-1].shape[2]
    best = (-1.0, RowGroup(first, last, 1))
    if threads > _MAX_STRIPS or (threads > 1 and height < 4 * threads):
        return best
    row_bytes = [node.type.nbytes // node.shape[2] for node in nodes]
    saved = 0.0
    for node in nodes[:-1]:
        if node.type.nbytes > isa.core.l2_bytes // 2:
            saved += 2 * node.type.nbytes / isa.core.stream_bytes
        elif node.type.nbytes > isa.core.l1_bytes // 2:
            saved += node.type.nbytes / _L2_BYTES
    weights = [sum(a.nbytes for a in steps[i].weights.values()) for i in range(first, last + 1)]
    for rows in _ROWS:
        if rows > height // threads // 2:
            break
        new, window, moved = rows, 0, 0
        for i in range(len(nodes) - 1, 0, -1):
            taken = min(layers[i].height, (new - 1) * layers[i].stride + layers[i].extent)
            new = min(layers[i].height, new * layers[i].stride)
            window += taken * row_bytes[i - 1]
            moved += (taken - new) * row_bytes[i - 1]
        if window + sum(weights) > isa.core.l2_bytes * 3 // 4:
            break
        again = sum(size for size in weights if size > isa.core.l1_bytes // 4)
        cost = -(-height // rows) * ((2 * moved + again) / _L2_BYTES + _CALL * len(nodes))
        cost += (threads - 1) * 2.0 * saved / height
        if height // threads % rows:
            cost += _RAGGED * saved  # a last band of fewer rows is code of its own
        if saved - cost > best[0]:
            best = (saved - cost, RowGroup(first, last, rows, threads))
    return best


def window_floats(step: Step, rows: int) -> int:
    """Floats of a window of so many rows of a step's output, up to a cache line."""
    return -(-rows * step.node.shape[3] * step.output.pitch // 16) * 16
