"""Data movement: operators that are affine copies between two tensors.

Every one becomes a few blocks, each a loop nest with fixed strides on both sides: transposes,
layout conversions, slices, concats, borders, repeats and space/depth blocks alike.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mdlc.codegen.code import C_TYPES, Body, Call, Function
from mdlc.codegen.gemm.strides import Dim, joined, logical_strides, nest, pointer
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Kernel, Schedule, Step
from mdlc.codegen.tiles.formula import element_literal
from mdlc.codegen.tiles.transpose import transpose_band, transposes
from mdlc.compiler.ir import Node
from mdlc.compiler.op import Op
from mdlc.compiler.ops.channel_shuffle import ChannelShuffle
from mdlc.compiler.ops.concat import Concat
from mdlc.compiler.ops.convert_layout import ConvertLayout
from mdlc.compiler.ops.depth_to_space import DepthToSpace
from mdlc.compiler.ops.expand import Expand
from mdlc.compiler.ops.pad import Pad
from mdlc.compiler.ops.slice import Slice
from mdlc.compiler.ops.space_to_depth import SpaceToDepth
from mdlc.compiler.ops.tile import Tile
from mdlc.compiler.ops.transpose import Transpose


@dataclass(frozen=True)
class Block:
    """A part of the result copied with fixed strides.

    Attributes:
        source: index of the run-time input.
        shape: trips of the loops; to, of: strides in the result and in the source.
        to_offset, of_offset: where the block starts in each.
    """

    shape: tuple[int, ...]
    to: tuple[int, ...]
    of: tuple[int, ...]
    to_offset: int = 0
    of_offset: int = 0
    source: int = 0


Strides = tuple[int, ...]


def _transpose(op: Transpose, node: Node, x: Sequence[Strides], y: Strides) -> list[Block]:
    return [Block(node.shape, y, tuple(x[0][axis] for axis in op.perm))]


def _convert(op: ConvertLayout, node: Node, x: Sequence[Strides], y: Strides) -> list[Block]:
    return [Block(node.shape, y, x[0])]


def _slice(op: Slice, node: Node, x: Sequence[Strides], y: Strides) -> list[Block]:
    start = sum(s * t for s, t in zip(op.starts, x[0], strict=True))
    return [
        Block(node.shape, y, tuple(s * t for s, t in zip(op.steps, x[0], strict=True)), 0, start)
    ]


def _expand(op: Expand, node: Node, x: Sequence[Strides], y: Strides) -> list[Block]:
    own = tuple(
        0 if length == 1 else stride
        for length, stride in zip(node.inputs[0].shape, x[0], strict=True)
    )
    return [Block(node.shape, y, (0,) * (len(node.shape) - len(own)) + own)]


def _tile(op: Tile, node: Node, x: Sequence[Strides], y: Strides) -> list[Block]:
    shape = node.inputs[0].shape
    repeated = tuple(s * d for s, d in zip(y, shape, strict=True))
    return [Block((*op.repeats, *shape), (*repeated, *y), ((0,) * len(shape)) + x[0])]


def _concat(op: Concat, node: Node, x: Sequence[Strides], y: Strides) -> list[Block]:
    blocks, at = [], 0
    for index, source in enumerate(node.inputs):
        blocks.append(Block(source.shape, y, x[index], at * y[op.axis], 0, index))
        at += source.shape[op.axis]
    return blocks


def _depth_to_space(op: DepthToSpace, node: Node, x: Sequence[Strides], y: Strides) -> list[Block]:
    n, c, h, w = node.inputs[0].shape
    b = op.block
    rest = c // (b * b)
    xn, xc, xh, xw = x[0]
    yn, yc, yh, yw = y
    # Channel index: DCR (row, column, channel), CRD (channel, row, column).
    row, column, channel = (b * rest, rest, 1) if op.mode == "DCR" else (b, 1, b * b)
    return [
        Block(
            (n, rest, h, b, w, b),
            (yn, yc, yh * b, yh, yw * b, yw),
            (xn, xc * channel, xh, xc * row, xw, xc * column),
        )
    ]


def _space_to_depth(op: SpaceToDepth, node: Node, x: Sequence[Strides], y: Strides) -> list[Block]:
    n, c, h, w = node.inputs[0].shape
    b = op.block
    xn, xc, xh, xw = x[0]
    yn, yc, yh, yw = y
    row, column, channel = (b * c, c, 1) if op.mode == "DCR" else (b, 1, b * b)
    return [
        Block(
            (n, c, h // b, b, w // b, b),
            (yn, yc * channel, yh, yc * row, yw, yc * column),
            (xn, xc, xh * b, xh, xw * b, xw),
        )
    ]


def _shuffle(op: ChannelShuffle, node: Node, x: Sequence[Strides], y: Strides) -> list[Block]:
    n, c, h, w = node.shape
    rest = c // op.groups
    (xn, xc, xh, xw), (yn, yc, yh, yw) = x[0], y
    return [
        Block(
            (n, rest, op.groups, h, w),
            (yn, yc * op.groups, yc, yh, yw),
            (xn, xc, xc * rest, xh, xw),
        )
    ]


def _pad(op: Pad, node: Node, x: Sequence[Strides], y: Strides) -> list[Block]:
    shape = node.inputs[0].shape
    per_axis = [_runs(op.source_index(axis, length).tolist()) for axis, length in enumerate(shape)]
    blocks = []
    for runs in itertools.product(*per_axis):
        blocks.append(
            Block(
                tuple(count for _, _, count, _ in runs),
                y,
                tuple(step * s for (_, _, _, step), s in zip(runs, x[0], strict=True)),
                sum(at * s for (at, _, _, _), s in zip(runs, y, strict=True)),
                sum(start * s for (_, start, _, _), s in zip(runs, x[0], strict=True)),
            )
        )
    return blocks


def _runs(indices: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """Arithmetic runs of indices >= 0: (position, first index, count, step)."""
    runs: list[tuple[int, int, int, int]] = []
    position = 0
    while position < len(indices):
        if indices[position] < 0:
            position += 1
            continue
        end, step = position + 1, 0
        if end < len(indices) and indices[end] >= 0:
            step = indices[end] - indices[position]
            while end < len(indices) and indices[end] - indices[end - 1] == step:
                end += 1
        runs.append(
            (position, indices[position], end - position, step if end - position > 1 else 0)
        )
        position = end
    return runs


_BLOCKS: dict[type[Op], Callable[..., list[Block]]] = {
    Transpose: _transpose,
    ConvertLayout: _convert,
    Slice: _slice,
    Expand: _expand,
    Tile: _tile,
    Concat: _concat,
    DepthToSpace: _depth_to_space,
    SpaceToDepth: _space_to_depth,
    Pad: _pad,
    ChannelShuffle: _shuffle,
}


class Movement(Kernel):
    """Strided copies."""

    name = "copy"
    layer = "DataMovement"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        return type(node.op) in _BLOCKS

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        return node.type.size * 1.5

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, object]:  # type: ignore[override]
        return {
            f"constant{i}": source.type.to_physical(source.constant)
            for i, source in enumerate(node.inputs)
            if source.constant is not None
        }

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node = step.node
        size = node.type.dtype.size
        kind = C_TYPES[node.type.dtype]
        from mdlc.codegen.kernel import View

        runtime = iter(range(len(step.inputs)))
        names, strides = [], []
        for index, source in enumerate(node.inputs):
            if source.constant is not None:
                names.append(f"constant{index}")
                strides.append(logical_strides(View.of(source.type, 0)))
            else:
                position = next(runtime)
                names.append("x" if len(step.inputs) == 1 else f"x{position}")
                strides.append(logical_strides(step.inputs[position]))
        blocks = _BLOCKS[type(node.op)](node.op, node, strides, logical_strides(step.output))
        parts = [
            self._block(b, names[b.source], kind, size, _transpose_of(node, isa)) for b in blocks
        ]
        if (
            isinstance(node.op, Pad)
            and node.op.mode == "constant"
            and node.type.size != sum(math.prod(block.shape) for block in blocks)
        ):
            parts.insert(0, self._fill(node.op, step))
        shapes = "x".join(map(str, node.inputs[0].type.physical_shape))
        target = "x".join(map(str, node.type.physical_shape))
        name = f"{type(node.op).__name__.lower()}_{shapes}_to_{target}_{node.type.dtype.value}"
        return step.function(
            name,
            *parts,
            comment=[node.op.words],
            inputs=[
                word
                for word, source in zip(names, node.inputs, strict=True)
                if source.constant is None
            ],
            includes=("cstdint", "cstring", *_limits(node.op)),
        )

    @staticmethod
    def _fill(op: Pad, step: Step) -> Body:
        dims = joined(step.node.shape, [logical_strides(step.output)], 0)
        value = element_literal(op.value, step.node.type.dtype)
        body = f"*({pointer('y', dims, 0)}) = {value};"
        return nest([dim.count for dim in dims], body, shared=True)

    @staticmethod
    def _block(
        block: Block, source: str, kind: str, size: int, transpose: KernelIsa | None
    ) -> Body:
        """The copy of a block; transpose: the ISA whose registers transpose its elements."""
        dims = joined(block.shape, [block.to, block.of], 0) or [Dim(1, (1, 1))]
        inner = dims[-1]
        if inner.strides == (1, 1):
            to = pointer("y", dims[:-1], 0, block.to_offset)
            of = pointer(source, dims[:-1], 1, block.of_offset)
            body = f"std::memcpy({to}, {of}, {inner.count * size});"
            return nest([dim.count for dim in dims[:-1]], body, shared=True)
        if transpose and (found := _transposed(block, source, dims, transpose)):
            return found
        to = pointer("y", dims, 0, block.to_offset)
        of = pointer(source, dims, 1, block.of_offset)
        return nest([dim.count for dim in dims], f"*({to}) = *({of});", shared=True)


def _transpose_of(node: Node, isa: KernelIsa) -> KernelIsa | None:
    """The ISA where its vectors hold the node's elements and it transposes them."""
    return isa if node.type.dtype is isa.dtype and transposes(isa) else None


def _transposed(block: Block, source: str, dims: Sequence[Dim], isa: KernelIsa) -> Body | None:
    """A copy whose neighbours on both sides run along different loops, by blocks of registers.

    The rows that are no whole band come last, with some that are written twice.
    """
    columns = dims[-1]
    if columns.strides[0] != 1 or columns.count < isa.lanes:
        return None
    rows = next((d for d in dims[:-1] if d.strides[1] == 1 and d.count >= isa.lanes), None)
    if rows is None:
        return None
    others = [dim for dim in dims[:-1] if dim is not rows]

    def bands(count: int, first: int) -> Body:
        loops = [*others, Dim(count, (rows.strides[0] * isa.lanes, isa.lanes))]
        to = pointer("y", loops, 0, block.to_offset + first * rows.strides[0])
        of = pointer(source, loops, 1, block.of_offset + first)
        numbers = columns.strides[1], rows.strides[0], columns.count
        call = Call(transpose_band(isa), (of, numbers[0], to, *numbers[1:]))
        return nest([dim.count for dim in loops], call, shared=True)

    count, rest = divmod(rows.count, isa.lanes)
    return bands(count, 0) + (bands(1, rows.count - isa.lanes) if rest else ())


def _limits(op: Op) -> tuple[str, ...]:
    """The header of infinities and NaN, where a border is one."""
    return () if not isinstance(op, Pad) or math.isfinite(op.value) else ("limits",)


KERNELS = (Movement(),)
