"""The loops around the register tiles of a product: groups, blocks of pixels and of channels.

One of them is for threads to share; panels of the left side are copied before the tiles that read
them. What a tile is, and what else it reads, is the caller's: floats and 8-bit integers share this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mdlc.codegen.code import Body, Call, Pointer, offset
from mdlc.codegen.gemm.shape import ChannelBlock, Product, Region, Steps, channel_blocks, regions
from mdlc.codegen.gemm.split import Chunk
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Schedule
from mdlc.codegen.threads import best_level, loop, loop_cases
from mdlc.codegen.tiles.gemm_panels import panel_pitch


def panel_elements(product: Product, schedule: Schedule, isa: KernelIsa) -> int:
    """Elements of scratch memory that a schedule's panels take."""
    if not schedule.panels:
        return 0
    found = regions(product, schedule)
    return max(each.rows * row_panels(product, schedule, isa, each) for each in found)


def row_panels(product: Product, schedule: Schedule, isa: KernelIsa, region: Region) -> int:
    """Elements of the panels of one row of a region."""
    pitch = sum(chunk.count * panel_pitch(chunk.size) for chunk in region.chunks)
    return pitch * product.packed_depth(schedule, isa)


def thread_panels(product: Product, schedule: Schedule, isa: KernelIsa) -> int:
    """Elements of panels that every further thread needs: those of loops around them."""
    levels = [parallel_level(product, schedule, isa, r) for r in regions(product, schedule)]
    if parallel_level(product, schedule, isa) or "block" in levels:
        return panel_elements(product, schedule, isa)
    return 0


def parallel_level(
    product: Product, schedule: Schedule, isa: KernelIsa, region: Region | None = None
) -> str:
    """The loop that threads share: group, or in a region block, n, row or column."""
    if region is None:
        first = regions(product, schedule)[0]
        best = parallel_level(product, schedule, isa, first)
        counts = dict(_levels(product, schedule, isa, first))
        found = best_level([("group", product.groups), (best, counts[best])])
        return found if found == "group" else ""
    return best_level(_levels(product, schedule, isa, region))


def _levels(
    product: Product, schedule: Schedule, isa: KernelIsa, region: Region
) -> list[tuple[str, int]]:
    blocks = channel_blocks(product, schedule, isa)
    return [
        ("block", sum(each.count for each in regions(product, schedule))),
        ("n", blocks[0].count),
        ("row", region.rows),
        ("column", region.chunks[0].count),
    ]


@dataclass(frozen=True)
class Place:
    """Where a tile stands in the loops.

    Attributes:
        lanes: channels of a vector.
        own: elements from one thread's panels to the next one's, where each has its own.
    """

    product: Product
    region: Region
    chunk: Chunk
    channels: ChannelBlock
    lanes: int
    own: int = 0

    def at(self, base: str, steps: Steps, per_channel: int = 0) -> Pointer:
        """The tile's first element of a tensor; per_channel: elements from channel to channel."""
        region, chunk, channels = self.region, self.chunk, self.channels
        block = region.columns * steps.pixel if self.product.rows == 1 else region.rows * steps.row
        row, column = region.first_row, region.first_column + chunk.first
        return offset(
            base,
            (self.product.images, "image", steps.image),
            (self.product.groups, "group", steps.group),
            (region.count, "block", block),
            (region.rows, "row", steps.row),
            (chunk.count, "column", chunk.size * steps.pixel),
            (channels.count, "n", channels.vectors * self.lanes * per_channel),
            fixed=steps.first
            + row * steps.row
            + column * steps.pixel
            + channels.first * per_channel,
        )

    def channel(self, base: str, group: int, per_channel: int = 1) -> Pointer:
        """The tile's first element of an array by channels; group: elements of a group."""
        channels = self.channels
        return offset(
            base,
            (self.product.groups, "group", group),
            (channels.count, "n", channels.vectors * self.lanes * per_channel),
            fixed=channels.first * per_channel,
        )

    def weights(self, base: str, group: int, depth: int) -> Pointer:
        """The tile's first packed weight."""
        channels = self.channels
        return offset(
            base,
            (self.product.groups, "group", group),
            (channels.count, "n", channels.vectors * self.lanes * depth),
            fixed=channels.offset,
        )

    def panel(self, row: int, depth: int) -> Pointer:
        """The tile's panel; row: elements of a row's panels."""
        chunk = self.chunk
        before = [other for other in self.region.chunks if other.first < chunk.first]
        return offset(
            "panels",
            (self.region.rows, "row", row),
            (chunk.count, "column", panel_pitch(chunk.size) * depth),
            fixed=sum(other.count * panel_pitch(other.size) * depth for other in before),
            own=self.own,
        )


def product_loops(
    product: Product,
    schedule: Schedule,
    isa: KernelIsa,
    tile: Callable[[Place], Body],
    copy: Callable[[Place], Call] | None = None,
    *,
    shared: bool = True,
) -> Body:
    """The loops inside the loop over images.

    Args:
        tile: the statements of one tile; copy: the call that copies a tile's pixels to its panel.
        shared: whether threads may share these loops (not if they share one around them).
    """
    blocks = channel_blocks(product, schedule, isa)
    by_group = shared and bool(parallel_level(product, schedule, isa))
    own = thread_panels(product, schedule, isa) if shared else 0

    def level(region: Region, block: ChannelBlock | None = None) -> str:
        if by_group or not shared:
            return "group" if by_group else ""
        found = parallel_level(product, schedule, isa, region)
        if found == "n" and block and block.count == 1:  # the rest of the channels
            return best_level([("row", region.rows), ("column", region.chunks[0].count)])
        return found

    def pixels(region: Region, channels: ChannelBlock, here: str,
               inside: Callable[[Place], Body]) -> Body:  # fmt: skip
        mine = own if level(region) in ("group", "block") else 0
        columns: list[Body] = []
        for chunk in region.chunks:
            place = Place(product, region, chunk, channels, isa.lanes, mine)
            columns.append(loop("column", chunk.count, inside(place), shared=here == "column"))
        return loop("row", region.rows, _joined(columns), shared=here == "row")

    def panels(region: Region) -> Body:
        """Panels are shared by threads that share a loop inside: then they share the copying."""
        if copy is None:
            return ()
        copied, here = copy, ""
        if level(region) in ("n", "row", "column"):
            here = "row" if region.rows > 1 else "column"
        return pixels(region, ChannelBlock(1, 0, 0, 0, 0), here, lambda place: (copied(place),))

    def block(region: Region) -> Body:
        found = [panels(region)]
        for channels in blocks:
            here = level(region, channels)
            inside = pixels(region, channels, here, tile)
            found.append(loop("n", channels.count, inside, shared=here == "n"))
        return _joined(found)

    found = regions(product, schedule)
    cases = [(region.count, block(region)) for region in found]
    inside = loop_cases("block", cases, shared=level(found[0]) == "block")
    return loop("group", product.groups, inside, shared=by_group)


def _joined(bodies: Sequence[Body]) -> Body:
    return tuple(statement for body in bodies for statement in body)
