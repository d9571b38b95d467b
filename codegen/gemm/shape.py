"""The shape of a convolution as a product, and how its pixels and channels are cut into blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from mdlc.codegen.gemm.split import Chunk, split_evenly
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Schedule
from mdlc.codegen.tiles.gemm_panels import packed_depth


@dataclass(frozen=True)
class Steps:
    """Elements from one image, output row, output pixel or group to the next in some tensor."""

    image: int
    row: int
    pixel: int
    group: int
    first: int = 0


@dataclass(frozen=True)
class Product:
    """A convolution as a product.

    Attributes:
        images: outer repetitions (batch).
        rows, columns: output pixels; merged into one row where all pixels are equally spaced.
        channels: output channels of one group; groups: independent products.
        run: contiguous elements of the depth; taps: (count, step) of the loops around it.
        x: steps in the input, residual: in the tensor added to the result, y: in the output.
        weights: elements before this product's packed weights.
    """

    images: int
    rows: int
    columns: int
    groups: int
    channels: int
    run: int
    taps: tuple[tuple[int, int], ...]
    x: Steps
    y: Steps
    residual: Steps | None = None
    weights: int = 0

    @property
    def depth(self) -> int:
        """Length of each sum of products."""
        return self.run * math.prod(count for count, _ in self.taps)

    def packed_depth(self, schedule: Schedule, isa: KernelIsa) -> int:
        """The depth as weights are packed for a schedule: panels pad each run."""
        taps = math.prod(count for count, _ in self.taps)
        return packed_depth(self.run, taps, isa) if schedule.panels else self.run * taps

    @property
    def pixels(self) -> int:
        """Output pixels of one image."""
        return self.rows * self.columns

    def merged(self) -> Product:
        """The same product with rows, then images, joined into longer rows where spacing allows."""
        merged = self
        tensors = [t for t in (self.x, self.y, self.residual) if t is not None]
        if all(t.row == self.columns * t.pixel for t in tensors):
            merged = replace(merged, rows=1, columns=self.pixels)
            if all(t.image == merged.columns * t.pixel for t in tensors):
                merged = replace(merged, images=1, columns=self.images * merged.columns)
        return merged


@dataclass(frozen=True)
class ChannelBlock:
    """Equal neighbouring blocks of output channels.

    Attributes:
        count: number of blocks; first: first channel.
        vectors, part: width of the tile (see Tile).
        offset: elements from the group's packed weights to the first block's.
    """

    count: int
    first: int
    vectors: int
    part: int
    offset: int


def channel_blocks(product: Product, schedule: Schedule, isa: KernelIsa) -> list[ChannelBlock]:
    """Output channels cut into full blocks and one narrower rest."""
    width, depth = schedule.tile[1], product.packed_depth(schedule, isa)
    full, rest = divmod(product.channels, width)
    blocks = [ChannelBlock(full, 0, width // isa.lanes, 0, 0)] if full else []
    if rest:
        start = full * width
        blocks.append(
            ChannelBlock(1, start, -(-rest // isa.lanes), rest % isa.lanes, start * depth)
        )
    return blocks


@dataclass(frozen=True)
class Region:
    """Output pixels computed with one loop nest.

    Attributes:
        count: number of row blocks; rows: rows in each; columns: pixels of a row.
        chunks: how a row is cut.
        first_row, first_column: where the region starts.
    """

    count: int
    rows: int
    columns: int
    chunks: tuple[Chunk, ...]
    first_row: int
    first_column: int


def regions(product: Product, schedule: Schedule) -> list[Region]:
    """The pixels of one image, cut into blocks of at most schedule.block[0] pixels (none: one)."""
    tile_rows, block = schedule.tile[0], schedule.block[0] if schedule.block else 0
    if product.rows == 1:
        block = min(block or product.columns, product.columns)
        pieces = _pieces(-(-product.columns // block), product)
        block = min(-(-product.columns // pieces // tile_rows) * tile_rows, block)
        count, rest = divmod(product.columns, block)
        found = [Region(count, 1, block, split_evenly(block, tile_rows), 0, 0)]
        if rest:
            found.append(Region(1, 1, rest, split_evenly(rest, tile_rows), 0, count * block))
        return found
    chunks = split_evenly(product.columns, tile_rows)
    rows = min(max(1, block // product.columns), product.rows) if block else product.rows
    rows = -(-product.rows // _pieces(-(-product.rows // rows), product))
    count, rest = divmod(product.rows, rows)
    found = [Region(count, rows, product.columns, chunks, 0, 0)]
    if rest:
        found.append(Region(1, rest, product.columns, chunks, count * rows, 0))
    return found


def _pieces(least: int, product: Product) -> int:
    """Blocks of pixels, at least so many: if more than one, a number that 2 or 4 threads can share.

    A multiple of four costs more blocks, and each reads all weights anew: it is taken only where
    there are fewer weights than input pixels.
    """
    if least == 1:
        return 1
    unit = 4 if product.depth * product.channels < product.run * product.pixels else 2
    return -(-least // unit) * unit
