"""Convolutions as products of activations and packed weights: cost, packing, loops.

A convolution over an NHWC tensor is a product [pixels x depth] * [depth x channels] whose left
side is never formed: pixels are equally spaced, and the depth is a contiguous run of elements
inside a short loop over filter taps (implicit GEMM).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mdlc.codegen.code import Body, Call, Pointer, Value
from mdlc.codegen.gemm.k_split import Part, Taps, parts
from mdlc.codegen.gemm.product_loops import Place, product_loops, row_panels
from mdlc.codegen.gemm.shape import Product, Steps, channel_blocks, regions
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.isa.dialect import CHUNKS
from mdlc.codegen.kernel import Schedule
from mdlc.codegen.threads import loop
from mdlc.codegen.tiles.epilogue import Epilogue
from mdlc.codegen.tiles.gemm import Tile
from mdlc.codegen.tiles.gemm_panels import (
    PackTile,
    PanelTile,
    chunk_steps,
    is_short,
    pack_instructions,
    padded_run,
    panel_pitch,
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


def pack_per_channel(values: Array, groups: int, isa: KernelIsa) -> Array:
    """A per-channel array padded with zeros to whole vectors, group by group."""
    grouped = values.astype(isa.dtype.numpy).reshape(groups, -1)
    padding = -grouped.shape[1] % isa.lanes
    return np.pad(grouped, ((0, 0), (0, padding))).reshape(-1)


def emit_loops(
    product: Product,
    schedule: Schedule,
    isa: KernelIsa,
    epilogue: Epilogue,
    x: str,
    y: str = "y",
    *,
    weights: str = "weights",
    bias: str = "bias",
    residual: str = "residual",
    shared: bool = True,
) -> Body:
    """The loops around the register tiles inside the loop over images.

    Args:
        x, y, weights, bias, residual: C++ names of the pointers that the product reads and writes.
            Panels, if the schedule has them, are written to `panels`.
        shared: whether threads may share these loops (not if they share one around them).
    """
    depth = product.packed_depth(schedule, isa)
    cut = parts(
        product.run,
        product.taps,
        depth,
        isa.longest_sum,
        chunk_steps(isa) * CHUNKS if schedule.panels else isa.lanes,
        panels=schedule.panels,
    )
    # Weights that do not stay in cache from one inference to the next are fetched a panel ahead.
    group_weights = packed_length(product, schedule, isa)
    streamed = group_weights * product.groups * isa.bytes > isa.core.l2_bytes
    ahead = streamed and "prefetch" in isa.spell
    group_bias = -(-product.channels // isa.lanes) * isa.lanes

    def ending(part: Part) -> Epilogue:
        """What happens to the sums of a part: parts but the first add to what is there."""
        return replace(
            epilogue,
            bias=epilogue.bias and (part.last if isa.bias_last else part.first),
            residual=epilogue.residual if part.first else True,
            activation=epilogue.activation if part.last else None,
        )

    def panel(place: Place) -> Pointer:
        return place.panel(row_panels(product, schedule, isa, place.region), depth)

    def copy(place: Place) -> Call:
        pack = PackTile(place.chunk.size, tuple(count for count, _ in product.taps), product.run)
        values = tile_numbers(product, product.run, product.taps)
        numbers = tuple(values[name] for name in pack.template_parameters(isa))
        return Call(pack.microkernel(isa), (place.at(x, product.x), panel(place)), numbers)

    def tile(place: Place) -> Body:
        return tuple(each for part in cut for each in one_part(place, part))

    def one_part(place: Place, part: Part) -> Body:
        end, channels, chunk = ending(part), place.channels, place.chunk
        added = product.residual if part.first else product.y
        width = channels.vectors * isa.lanes
        left = panel(place) if schedule.panels else place.at(x, product.x)
        left += part.x * (panel_pitch(chunk.size) if schedule.panels else 1)
        packed = place.weights(weights, group_weights, depth)
        packed += product.weights + part.before * width
        if part.count > 1:
            step = part.x_step * (panel_pitch(chunk.size) if schedule.panels else 1)
            left, packed = left.plus("part", step), packed.plus("part", part.depth * width)
        arrays: dict[str, Value] = {"a": left, "b": packed}
        if end.bias:
            arrays["bias"] = place.channel(bias, group_bias)
        if end.slope:
            arrays["slope"] = place.channel("slope", group_bias)
        if end.residual:
            assert added is not None
            arrays["residual"] = place.at(residual if part.first else y, added, 1)
        arrays["y"] = place.at(y, product.y, 1)
        if schedule.panels:
            panels = PanelTile(chunk.size, channels.vectors, channels.part, part.depth)
            call = panels.call(
                isa,
                end,
                arrays,
                out_step=product.y.pixel * isa.bytes,
                residual_step=added.pixel * isa.bytes if end.residual and added else 0,
            )
        else:
            tail = part.run % isa.lanes if isa.lane_fma else 0
            direct = Tile(chunk.size, channels.vectors, channels.part, len(part.taps), tail, ahead)
            values = tile_numbers(product, part.run, part.taps, added)
            values["kAhead"] = _ahead(width * depth, isa)
            listed = tuple(values[name] for name in direct.template_parameters(isa, end))
            call = Call(direct.microkernel(isa, end), tuple(arrays.values()), listed)
        return loop("part", part.count, (call,))

    return product_loops(
        product, schedule, isa, tile, copy if schedule.panels else None, shared=shared
    )


def _ahead(panel: int, isa: KernelIsa) -> int:
    """Elements from a weight to the one fetched meanwhile: the next panel's, if both are cached."""
    return panel if panel * isa.bytes <= isa.core.l2_bytes // 4 else 4096


def aligned(elements: int, isa: KernelIsa) -> int:
    """A number of elements rounded up to whole cache lines."""
    line = 64 // isa.bytes
    return -(-elements // line) * line


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
