"""How Winograd's convolution cuts an output into tiles, and their points into products.

Points whose products have the same depth are one class: without strides there is one, with a
stride of 2 those at infinity, which only the phases with all taps reach, have less.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from mdlc.codegen.gemm.shape import Product, Steps
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Schedule
from mdlc.codegen.tiles.winograd_transform import Transform, transform
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class PointClass:
    """Neighbouring points of a tile whose products have the same depth.

    Attributes:
        first, count: of the points, in the order of `Tiling.point`; depth: of each product.
        v: elements before their transformed inputs; weights: before their packed filters.
    """

    first: int
    count: int
    depth: int
    v: int
    weights: int = 0


@dataclass(frozen=True)
class Tiling:
    """How an output is cut into tiles.

    Attributes:
        transform: along both axes.
        kernel: taps of the filter along an axis, before phases; stride: the same for both axes.
        channels, filters: of the convolution.
        rows, columns: of tiles; block: rows of tiles computed together.
        partial: whether the last row of tiles reaches beyond the output.
        folded: elements of a pixel of the image whose phases were made channels, zero-filled to
            whole vectors; 0 where each phase is read from the image as it is.
    """

    transform: Transform
    kernel: int
    stride: int
    channels: int
    filters: int
    rows: int
    columns: int
    block: int
    partial: bool
    folded: int

    @property
    def tiles(self) -> int:
        """Tiles of a block."""
        return self.block * self.columns

    @property
    def points(self) -> int:
        """Number of independent products."""
        return self.transform.size**2

    def blocks(self) -> list[tuple[int, int, int]]:
        """(first tile row, number of equal blocks, tile rows in each)."""
        count, rest = divmod(self.rows, self.block)
        if not rest and self.partial and count > 1:  # the last block differs from the others
            count, rest = count - 1, self.block
        found = [(0, count, self.block)]
        return found + ([(count * self.block, 1, rest)] if rest else [])

    def full_phases(self) -> int:
        """Phases of an axis, from the first, that have a last tap."""
        if self.folded:
            return 1
        return (self.kernel - 1) % self.stride + 1

    def phases(self) -> list[tuple[int, int]]:
        """(row, column) of the phases that are transformed one after the other."""
        if self.folded:
            return [(0, 0)]
        return [(row, column) for row in range(self.stride) for column in range(self.stride)]

    def order(self) -> list[int]:
        """Points as row * size + column, in the order in which they lie in memory.

        All points of finite columns row by row, then those of the column at infinity.
        """
        size = self.transform.size
        finite = [row * size + column for row in range(size) for column in range(size - 1)]
        return finite + [row * size + size - 1 for row in range(size)]

    def depths(self) -> tuple[int, int, int, int]:
        """Depth of the products at finite points; at infinity down, across, and both."""
        if self.folded:
            return (self.folded,) * 4
        full, every = self.full_phases(), self.stride
        counts = every * every, full * every, every * full, full * full
        depths = tuple(count * self.channels for count in counts)
        return depths[0], depths[1], depths[2], depths[3]

    def classes(self) -> list[PointClass]:
        """The points in the order of `order`, those of equal depth together."""
        last = self.transform.size - 1
        counts = last * last, last, last, 1
        found: list[PointClass] = []
        first = v = 0
        for count, depth in zip(counts, self.depths(), strict=True):
            if found and found[-1].depth == depth:
                before = found[-1]
                found[-1] = PointClass(before.first, before.count + count, depth, before.v)
            else:
                found.append(PointClass(first, count, depth, v))
            first += count
            v += count * depth * self.tiles
        return found

    def v_elements(self) -> int:
        """Elements of a block's transformed inputs."""
        return sum(each.count * each.depth for each in self.classes()) * self.tiles

    def product(self, points: PointClass, rows: int, weights: int = 0) -> Product:
        """The products of a class for so many rows of tiles."""
        run = self.channels * self.stride**2 if self.folded else points.depth
        return Product(
            1,
            1,
            rows * self.columns,
            points.count,
            self.filters,
            run,
            (),
            Steps(0, 0, points.depth, self.tiles * points.depth, points.v),
            Steps(
                0,
                0,
                self.filters,
                self.tiles * self.filters,
                points.first * self.tiles * self.filters,
            ),
            weights=weights,
        )

    def filter_classes(self, weights: Array) -> list[Array]:
        """Transformed filters of each class, [points, depth, filters], from [M, C, kH, kW]."""
        taps = self.transform.taps
        transformed = {}
        for row, column in itertools.product(range(self.stride), repeat=2):
            phase = np.zeros((*weights.shape[:2], taps, taps))
            part = weights[:, :, row :: self.stride, column :: self.stride]
            phase[:, :, : part.shape[2], : part.shape[3]] = part
            filters = self.transform.filters(phase).astype(np.float32)
            transformed[row, column] = filters.reshape(self.points, *weights.shape[:2])
        full, last = self.full_phases(), self.transform.size - 1

        def depth(point: int) -> Array:
            """[depth, filters] of a point: of the phases that have products there."""
            chosen = [
                filters
                for (row, column), filters in transformed.items()
                if self.folded
                or ((point // (last + 1) < last or row < full)
                    and (point % (last + 1) < last or column < full))
            ]  # fmt: skip
            return np.concatenate([filters[point] for filters in chosen], axis=1).T

        order = self.order()
        return [
            np.stack([depth(point) for point in order[each.first : each.first + each.count]])
            for each in self.classes()
        ]


def tiling(node: Node, isa: KernelIsa, outputs: int, block: int) -> Tiling:
    """The tiles of F(outputs, taps) for a convolution that ConvWinograd matches."""
    op = node.op
    assert isinstance(op, Conv2D)
    filters, channels, kernel, _ = node.inputs[1].shape
    stride = op.stride[0]
    rows, columns = (-(-length // outputs) for length in node.shape[2:])
    folded = 0
    if channels % isa.lanes:
        folded = -(-channels * stride**2 // isa.lanes) * isa.lanes
    return Tiling(
        transform(outputs, -(-kernel // stride), isa.dtype),
        kernel,
        stride,
        channels,
        filters,
        rows,
        columns,
        min(block, rows),
        node.shape[2] % outputs != 0,
        folded,
    )


def tiling_of(node: Node, isa: KernelIsa, schedule: Schedule) -> Tiling:
    """The tiles of a schedule, whose block is (outputs, tile rows)."""
    return tiling(node, isa, *schedule.block)
