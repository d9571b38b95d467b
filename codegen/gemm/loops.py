"""Convolutions as products of activations and packed weights: cost, packing, loops.

A convolution over an NHWC tensor is a product [pixels x depth] * [depth x channels] whose left
side is never formed: pixels are equally spaced, and the depth is a contiguous run of elements
inside a short loop over filter taps (implicit GEMM).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mdlc.codegen.code import Microkernel
from mdlc.codegen.gemm.k_split import Part, Taps, parts
from mdlc.codegen.gemm.shape import ChannelBlock, Product, Region, Steps, channel_blocks, regions
from mdlc.codegen.gemm.split import Chunk
from mdlc.codegen.isa.arm.panels import CHUNKS
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Schedule
from mdlc.codegen.templates import render
from mdlc.codegen.threads import CLOSE, best_level, loop_cases, open_parallel, own
from mdlc.codegen.tiles.epilogue import Epilogue
from mdlc.codegen.tiles.gemm import Tile
from mdlc.codegen.tiles.gemm_panels import (
    PackTile,
    PanelTile,
    is_short,
    pack_instructions,
    padded_run,
    panel_pitch,
    piece,
    step_instructions,
    tile_heights,
    tile_instructions,
)
from mdlc.compiler.types import Array


def schedules(product: Product, isa: KernelIsa) -> list[Schedule]:
    """Register tiles that fit the registers, with the cache block that suits each."""
    most_vectors = -(-product.channels // isa.lanes)
    found = set()
    for vectors in range(1, min(most_vectors, 8 if isa.lanes > 1 else 4) + 1):
        # Registers beside the accumulators: a row of b and one a, or one a per pixel.
        if isa.lane_fma:
            rows = (isa.registers - 1 - min(vectors, 2)) // (vectors + 1)
        else:
            rows = (isa.registers - vectors - 1) // vectors
        rows = min(rows, product.columns, isa.lane_rows)
        for height in {rows, *(r for r in (4, 6, 7, 8, 14) if r < rows)}:
            if height >= 1:
                block = _block(product, height, isa)
                found.add(Schedule("direct", (height, vectors * isa.lanes), block))
        for height in tile_heights(vectors, isa):
            block = _block(product, height, isa, panels=True)
            found.add(Schedule("direct", (height, vectors * isa.lanes), block, panels=True))
    return sorted(found, key=lambda schedule: (schedule.panels, schedule.tile))


def _block(product: Product, rows: int, isa: KernelIsa, *, panels: bool = False) -> tuple[int, ...]:
    """Pixels whose inputs stay in cache while all weights pass by; () for all of them."""
    weights = product.depth * product.channels * isa.bytes
    # Bytes of input that a further pixel brings.
    inputs = max((product.depth if panels else product.x.pixel) * isa.bytes, 1)
    if weights <= isa.core.l1_bytes // 2:
        return (rows,) if product.rows == 1 else (product.columns,)
    block = max(isa.core.l2_bytes // 2 // inputs // rows, 1) * rows
    return () if block >= product.pixels else (block,)


def cycles(product: Product, schedule: Schedule, isa: KernelIsa) -> float:
    """Estimated cycles on one core: of the arithmetic, or of streaming the weights if more."""
    total = 0.0
    blocks = channel_blocks(product, schedule, isa)
    depth = product.packed_depth(schedule, isa)
    for region in regions(product, schedule):
        for chunk in region.chunks:
            step = once = 0.0
            for block in blocks:
                fmas = chunk.size * block.vectors
                busy = _step_cycles(chunk.size, block.vectors, schedule, isa)
                row = block.vectors * isa.lanes * isa.bytes
                if (
                    row * depth > isa.core.l2_bytes * 3 // 4
                ):  # read anew from beyond it for every tile
                    busy = max(busy, row / 16)
                step += block.count * busy
                if schedule.panels:
                    residual = product.residual is not None
                    beside = tile_instructions(
                        chunk.size, block.vectors, block.part, residual=residual
                    )
                else:
                    beside = 6 + 3 * fmas + (8 * chunk.size if block.part else 0)
                # Where there are panels, instructions are what counts.
                once += block.count * beside / (isa.core.issue_width if isa.panels else 1)
            if schedule.panels:
                step += pack_instructions(chunk.size, isa) / isa.core.issue_width
            total += region.count * region.rows * chunk.count * (depth * step + once)
    weights = packed_length(product, schedule, isa) * product.groups * isa.bytes
    streamed = weights / isa.core.stream_bytes if weights > isa.core.l2_bytes else 0.0
    total *= product.images * product.groups
    return max(total, streamed) + 0.1 * min(total, streamed)


def _step_cycles(rows: int, vectors: int, schedule: Schedule, isa: KernelIsa) -> float:
    """Cycles of one step of a tile's depth."""
    fmas = rows * vectors
    loads = vectors + (rows / isa.lanes if isa.lane_fma or schedule.panels else rows)
    if schedule.panels:
        started = step_instructions(rows, vectors, isa)
    else:
        started = fmas + (vectors / 2 + (rows + 3) / isa.lanes if isa.lane_fma else loads)
    return max(
        fmas / isa.fma_per_cycle,
        loads / isa.loads_per_cycle,
        started / isa.core.issue_width,
        isa.core.fma_latency,
    )


def pack_matrix(matrix: Array, product: Product, schedule: Schedule, isa: KernelIsa) -> Array:
    """Weights [groups, depth, channels] as panels of [depth][tile channels], zero-filled."""
    panels = []
    depth = product.packed_depth(schedule, isa)
    if depth != product.depth:
        short = is_short(product.run, product.depth // product.run, isa)
        run = product.depth if short else product.run
        runs = matrix.reshape(product.groups, -1, run, product.channels)
        matrix = np.pad(runs, ((0, 0), (0, 0), (0, padded_run(run, isa) - run), (0, 0)))
        matrix = matrix.reshape(product.groups, depth, product.channels)
    for group in matrix:
        for block in channel_blocks(product, schedule, isa):
            width = block.vectors * isa.lanes
            for index in range(block.count):
                first = block.first + index * width
                part = group[:, first : min(first + width, product.channels)]
                panel = np.zeros((depth, width), isa.dtype.numpy)
                panel[:, : part.shape[1]] = part
                panels.append(panel.reshape(-1))
    return np.concatenate(panels)


def packed_length(product: Product, schedule: Schedule, isa: KernelIsa) -> int:
    """Elements of one group's packed weights."""
    blocks = channel_blocks(product, schedule, isa)
    width = sum(block.count * block.vectors * isa.lanes for block in blocks)
    return width * product.packed_depth(schedule, isa)


def panel_elements(product: Product, schedule: Schedule, isa: KernelIsa) -> int:
    """Elements of scratch memory that a schedule's panels take."""
    if not schedule.panels:
        return 0
    return max(
        _region_panels(product, schedule, isa, region) for region in regions(product, schedule)
    )


def _region_panels(product: Product, schedule: Schedule, isa: KernelIsa, region: Region) -> int:
    return region.rows * row_panels(product, schedule, isa, region)


def row_panels(product: Product, schedule: Schedule, isa: KernelIsa, region: Region) -> int:
    """Elements of the panels of one row of a region."""
    pitch = sum(chunk.count * panel_pitch(chunk.size) for chunk in region.chunks)
    return pitch * product.packed_depth(schedule, isa)


def pack_per_channel(values: Array, groups: int, isa: KernelIsa) -> Array:
    """A per-channel array padded with zeros to whole vectors, group by group."""
    grouped = values.astype(isa.dtype.numpy).reshape(groups, -1)
    padding = -grouped.shape[1] % isa.lanes
    return np.pad(grouped, ((0, 0), (0, padding))).reshape(-1)


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


def thread_panels(product: Product, schedule: Schedule, isa: KernelIsa) -> int:
    """Elements of panels that every further thread needs: those of loops around them."""
    levels = [parallel_level(product, schedule, isa, r) for r in regions(product, schedule)]
    if parallel_level(product, schedule, isa) or "block" in levels:
        return panel_elements(product, schedule, isa)
    return 0


def emit_loops(
    product: Product,
    schedule: Schedule,
    isa: KernelIsa,
    epilogue: Epilogue,
    x: str,
    y: str = "y",
    *,
    shared: bool = True,
) -> tuple[str, list[Microkernel]]:
    """The loop nest around the register tiles inside the loop over images, and the tiles.

    Args:
        x, y: C++ names of the pointers that product.x and product.y count from. Panels, if the
            schedule has them, are written to `panels`.
        shared: whether threads may share these loops (not if they share one around them).
    """
    blocks = channel_blocks(product, schedule, isa)
    found = regions(product, schedule)
    depth = product.packed_depth(schedule, isa)
    cut = parts(
        product.run,
        product.taps,
        depth,
        isa.longest_sum,
        piece(isa) * CHUNKS if schedule.panels else isa.lanes,
        panels=schedule.panels,
    )

    # Weights that do not stay in cache from one inference to the next are fetched a panel ahead.
    streamed = (
        packed_length(product, schedule, isa) * product.groups * isa.bytes > isa.core.l2_bytes
    )
    ahead = streamed and "prefetch" in isa.spell

    def ending(part: Part) -> Epilogue:
        """What happens to the sums of a part: parts but the first add to what is there."""
        return replace(
            epilogue,
            bias=epilogue.bias and (part.last if isa.bias_last else part.first),
            residual=epilogue.residual if part.first else True,
            activation=epilogue.activation if part.last else None,
        )

    def residual(part: Part) -> Steps | None:
        return product.residual if part.first else product.y

    def tile(chunk: Chunk, block: ChannelBlock, part: Part) -> Tile | PanelTile:
        if schedule.panels:
            return PanelTile(chunk.size, block.vectors, block.part, part.depth)
        tail = part.run % isa.lanes if isa.lane_fma else 0
        return Tile(chunk.size, block.vectors, block.part, len(part.taps), tail, ahead)

    def pack(chunk: Chunk) -> PackTile:
        return PackTile(chunk.size, tuple(count for count, _ in product.taps), product.run)

    def call(chunk: Chunk, block: ChannelBlock, part: Part) -> str:
        shape = tile(chunk, block, part)
        end = ending(part)
        if isinstance(shape, PanelTile):
            return shape.name(isa, end)
        values = tile_numbers(product, part.run, part.taps, residual(part))
        values["kAhead"] = _ahead(block.vectors * isa.lanes * depth, isa)
        return spelled(shape.name(isa, end), shape.template_parameters(isa, end), values)

    def numbers(chunk: Chunk, block: ChannelBlock, part: Part) -> str:
        """What a tile on panels takes behind its arrays."""
        shape, added = tile(chunk, block, part), residual(part)
        if not isinstance(shape, PanelTile):
            return ""
        values = {
            "out_step": product.y.pixel * isa.bytes,
            "residual_step": added.pixel * isa.bytes if added else 0,
            "trips": shape.trips(isa),
        }
        return "".join(f", {values[name]}" for name in shape.numbers(isa, ending(part)))

    def pack_call(chunk: Chunk) -> str:
        values = tile_numbers(product, product.run, product.taps)
        return spelled(pack(chunk).name(isa), pack(chunk).template_parameters(isa), values)

    own_panels = thread_panels(product, schedule, isa)
    by_group = shared and bool(parallel_level(product, schedule, isa))

    def level(region: Region, block: ChannelBlock | None = None) -> str:
        if by_group:
            return "group"
        found = parallel_level(product, schedule, isa, region) if shared else ""
        if found == "n" and block and block.count == 1:  # the rest of the channels
            return best_level([("row", region.rows), ("column", region.chunks[0].count)])
        return found

    text = render(
        "cpp/kernels/product.j2",
        level=level,
        by_group=by_group,
        open_parallel=open_parallel,
        loop_cases=loop_cases,
        close=CLOSE,
        own=own(own_panels) if own_panels and shared else "",
        product=product,
        blocks=blocks,
        regions=found,
        call=call,
        numbers=numbers,
        pack_call=pack_call,
        panels=schedule.panels,
        parts=cut,
        ending=ending,
        part_step=lambda part, chunk: panel_pitch(chunk.size) if schedule.panels else 1,
        panel_row=lambda region: row_panels(product, schedule, isa, region),
        panel_size=lambda chunk: panel_pitch(chunk.size) * depth,
        depth=depth,
        lanes=isa.lanes,
        x_name=x,
        y_name=y,
        group_weights=packed_length(product, schedule, isa),
        group_bias=-(-product.channels // isa.lanes) * isa.lanes,
    )
    chunks = [chunk for region in found for chunk in region.chunks]
    microkernels = [pack(chunk).microkernel(isa) for chunk in chunks] if schedule.panels else []
    microkernels += [
        tile(chunk, block, part).microkernel(isa, ending(part))
        for chunk in chunks
        for block in blocks
        for part in cut
    ]
    return text, list(dict.fromkeys(microkernels))


def _ahead(panel: int, isa: KernelIsa) -> int:
    """Elements from a weight to the one fetched meanwhile: the next panel's, if both are cached."""
    return panel if panel * isa.bytes <= isa.core.l2_bytes // 4 else 4096


def aligned(elements: int, isa: KernelIsa) -> int:
    """A number of elements rounded up to whole cache lines."""
    line = 64 // isa.bytes
    return -(-elements // line) * line


def spelled(name: str, parameters: Sequence[str], values: Mapping[str, int]) -> str:
    """A function template with its integers filled in."""
    listed = ", ".join(str(values[parameter]) for parameter in parameters)
    return f"{name}<{listed}>" if listed else name


def tile_numbers(
    product: Product, run: int, taps: Taps, residual: Steps | None = None
) -> dict[str, int]:
    """The compile-time integers of tiles and copies, by the names of their parameters."""
    values = {
        "kRun": run,
        "kPixelStep": product.x.pixel,
        "kOutStep": product.y.pixel,
        "kResidualStep": residual.pixel if residual else 0,
    }
    if len(taps) == 1:
        values["kTaps"], values["kTapStep"] = taps[0]
    elif taps:
        values["kTapsY"], values["kTapStepY"] = taps[0]
        values["kTapsX"], values["kTapStepX"] = taps[1]
    return values
