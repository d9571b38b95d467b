"""Direct convolution as implicit GEMM: packed weights, activations read in place, no im2col.

Covers every Conv2D but depthwise ones, and Dense as a convolution over one row of pixels. A
filter row is one contiguous run of kW*C floats in NHWC, so the depth of the product is a short
loop over filter rows around a run. Padding is a copy of the input with a border.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdlc.codegen.epilogue import Epilogue
from mdlc.codegen.isa import Isa
from mdlc.codegen.kernel import Kernel, LayerCode, Schedule, Step
from mdlc.codegen.padding import pad_microkernel
from mdlc.codegen.splits import Chunk, split_evenly
from mdlc.codegen.templates import render
from mdlc.codegen.tile import Tile
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.dense import Dense
from mdlc.compiler.types import Array, DType


@dataclass(frozen=True)
class Geometry:
    """A convolution as a product: pixels x depth times depth x channels.

    Attributes:
        images: outer repetitions (batch).
        rows, columns: output pixels; merged into one row where the input pixels are equally
            spaced throughout.
        channels: output channels of one group; groups: independent products.
        run: contiguous floats of the depth; taps: (count, step) of the loops around it.
        row_step, pixel_step: floats between the inputs of output rows and pixels.
        image_step, group_step: floats from one image or group to the next.
        padded: [height, width] of the bordered copy of the input, or None.
    """

    images: int
    rows: int
    columns: int
    groups: int
    channels: int
    run: int
    taps: tuple[tuple[int, int], ...]
    row_step: int
    pixel_step: int
    image_step: int
    group_step: int
    padded: tuple[int, int] | None = None

    @property
    def depth(self) -> int:
        """Length of each sum of products."""
        return self.run * math.prod(count for count, _ in self.taps)

    @property
    def pixels(self) -> int:
        """Output pixels of one image."""
        return self.rows * self.columns

    @staticmethod
    def of(node: Node, pitch: int | None = None) -> Geometry:
        """The geometry of a Conv2D or Dense whose input has `pitch` floats from pixel to pixel."""
        x, w = node.inputs[0], node.inputs[1]
        if isinstance(node.op, Dense):
            count, depth = math.prod(x.shape[:-1]), x.shape[-1]
            return Geometry(1, 1, count, 1, w.shape[0], depth, (), 0, pitch or depth, 0, 0)
        assert isinstance(node.op, Conv2D)
        op = node.op
        images, channels, height, width = x.shape
        filters, per_group, kh, kw = w.shape
        oh, ow = node.shape[2:]
        pitch = pitch or channels
        window = op.window((kh, kw))
        reach = tuple(
            (n - 1) * s + e for n, s, e in zip((oh, ow), op.stride, window.extent, strict=True)
        )
        padded = None
        if op.pads[0] or op.pads[1] or reach[0] > height or reach[1] > width:
            padded, height, width, pitch = (reach[0], reach[1]), reach[0], reach[1], channels
        joined = kw > 1 and op.dilation[1] == 1 and op.groups == 1 and pitch == channels
        run = kw * channels if joined else per_group
        taps = [(kh, op.dilation[0] * width * pitch)]
        if not joined:
            taps.append((kw, op.dilation[1] * pitch))
        row_step, pixel_step = op.stride[0] * width * pitch, op.stride[1] * pitch
        if row_step == ow * pixel_step:
            oh, ow = 1, oh * ow
        image_step = height * width * pitch
        if oh == 1 and image_step == ow * pixel_step:
            images, ow = 1, images * ow
        return Geometry(
            images,
            oh,
            ow,
            op.groups,
            filters // op.groups,
            run,
            tuple((count, step) for count, step in taps if count > 1),
            row_step,
            pixel_step,
            image_step,
            per_group,
            padded,
        )


@dataclass(frozen=True)
class ChannelBlock:
    """Equal neighbouring blocks of output channels.

    Attributes:
        count: number of blocks; first: first channel.
        vectors, part: width of the tile (see Tile).
        offset: floats from the group's packed weights to the first block's.
    """

    count: int
    first: int
    vectors: int
    part: int
    offset: int


def channel_blocks(channels: int, vectors: int, depth: int, lanes: int) -> list[ChannelBlock]:
    """Output channels cut into full blocks and one narrower rest."""
    width = vectors * lanes
    full, rest = divmod(channels, width)
    blocks = [ChannelBlock(full, 0, vectors, 0, 0)] if full else []
    if rest:
        blocks.append(
            ChannelBlock(1, full * width, -(-rest // lanes), rest % lanes, full * width * depth)
        )
    return blocks


@dataclass(frozen=True)
class Region:
    """Output pixels computed with one loop nest.

    Attributes:
        count: number of row blocks; rows: rows in each; chunks: how a row is cut.
        first: first row (or first pixel where rows are merged: then rows is 1).
        first_column: first pixel of every row.
        columns: pixels of a row.
    """

    count: int
    rows: int
    columns: int
    chunks: tuple[Chunk, ...]
    first_row: int
    first_column: int


def regions(geometry: Geometry, schedule: Schedule) -> list[Region]:
    """The pixels of one image, cut into blocks of schedule.block[0] pixels (0: one block)."""
    tile_rows, block = schedule.tile[0], schedule.block[0] if schedule.block else 0
    if geometry.rows == 1:
        if not block or block >= geometry.columns:
            chunks = split_evenly(geometry.columns, tile_rows)
            return [Region(1, 1, geometry.columns, chunks, 0, 0)]
        count, rest = divmod(geometry.columns, block)
        found = [Region(count, 1, block, split_evenly(block, tile_rows), 0, 0)]
        if rest:
            found.append(Region(1, 1, rest, split_evenly(rest, tile_rows), 0, count * block))
        return found
    chunks = split_evenly(geometry.columns, tile_rows)
    rows = min(max(1, block // geometry.columns), geometry.rows) if block else geometry.rows
    count, rest = divmod(geometry.rows, rows)
    found = [Region(count, rows, geometry.columns, chunks, 0, 0)]
    if rest:
        found.append(Region(1, rest, geometry.columns, chunks, count * rows, 0))
    return found


class ConvDirect(Kernel):
    """Implicit GEMM on activations where they lie."""

    name = "conv_direct"
    layer = "Convolution"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, isa: Isa) -> bool:
        if node.type.dtype is not DType.F32 or any(s.constant is None for s in node.inputs[1:3]):
            return False
        return isinstance(node.op, Conv2D | Dense)

    def schedules(self, node: Node, isa: Isa) -> Sequence[Schedule]:
        geometry = Geometry.of(node)
        most_vectors = -(-geometry.channels // isa.lanes)
        found = []
        for vectors in range(1, min(most_vectors, 8 if isa.lanes > 1 else 4) + 1):
            # Registers beside the accumulators: a row of b and one a, or one a per pixel.
            if isa.lane_fma:
                rows = (isa.registers - 1 - min(vectors, 2)) // (vectors + 1)
            else:
                rows = (isa.registers - vectors - 1) // vectors
            rows = min(rows, geometry.columns, 16)
            for height in {rows, *(r for r in (4, 6, 7, 8, 14) if r < rows)}:
                if height >= 1:
                    block = self._block(geometry, height, isa)
                    found.append(Schedule("direct", (height, vectors * isa.lanes), block))
        return sorted(set(found), key=lambda s: s.tile)

    @staticmethod
    def _block(geometry: Geometry, rows: int, isa: Isa) -> tuple[int, ...]:
        """Pixels whose inputs stay in cache while all weights pass by; () for all of them."""
        weights = geometry.depth * geometry.channels * 4
        inputs = geometry.pixel_step * 4  # bytes of input that a further pixel brings
        if weights <= isa.l1_bytes // 2:
            return (rows,) if geometry.rows == 1 else (geometry.columns,)
        block = max(isa.l2_bytes // 2 // max(inputs, 1) // rows, 1) * rows
        return () if block >= geometry.pixels else (block,)

    def cost(self, node: Node, schedule: Schedule, isa: Isa) -> float:
        geometry = Geometry.of(node)
        cycles = 0.0
        blocks = channel_blocks(
            geometry.channels, schedule.tile[1] // isa.lanes, geometry.depth, isa.lanes
        )
        for region in regions(geometry, schedule):
            for chunk in region.chunks:
                for block in blocks:
                    fmas = chunk.size * block.vectors
                    if isa.lane_fma:
                        loads = block.vectors + chunk.size / isa.lanes
                    else:
                        loads = block.vectors + chunk.size
                    # A multiply-add waits 4 cycles for the one before it on its accumulator.
                    step = max(
                        fmas / isa.fma_per_cycle,
                        loads / isa.loads_per_cycle,
                        (fmas + loads) / isa.issue_width,
                        4.0,
                    )
                    once = 6 + 3 * fmas + (8 * chunk.size if block.part else 0)
                    tiles = region.count * region.rows * chunk.count * block.count
                    cycles += tiles * (geometry.depth * step + once)
        cycles *= geometry.images * geometry.groups
        if geometry.padded:
            cycles += node.inputs[0].type.size / isa.lanes * 2
        return cycles

    def pack(self, node: Node, schedule: Schedule, isa: Isa) -> dict[str, Array]:
        geometry = Geometry.of(node)
        weights, bias = node.inputs[1].constant, node.inputs[2].constant
        assert weights is not None and bias is not None
        # [M, C/g, kH, kW] -> [g, depth, m]: the depth runs over kH, kW, C like the input.
        if weights.ndim == 4:
            weights = weights.transpose(0, 2, 3, 1)
        matrix = weights.reshape(geometry.groups, geometry.channels, geometry.depth)
        matrix = matrix.transpose(0, 2, 1)
        blocks = channel_blocks(
            geometry.channels, schedule.tile[1] // isa.lanes, geometry.depth, isa.lanes
        )
        panels = []
        for group in matrix:
            for block in blocks:
                width = block.vectors * isa.lanes
                for index in range(block.count):
                    first = block.first + index * width
                    panel = np.zeros((geometry.depth, width), np.float32)
                    part = group[:, first : min(first + width, geometry.channels)]
                    panel[:, : part.shape[1]] = part
                    panels.append(panel.reshape(-1))
        packed = {
            "weights": np.concatenate(panels),
            "bias": pack_per_channel(bias, geometry.groups, isa),
        }
        if self._epilogue(node).slope:
            slope = node.inputs[3].constant
            assert slope is not None
            packed["slope"] = pack_per_channel(slope, geometry.groups, isa)
        return packed

    def scratch(self, node: Node, schedule: Schedule, isa: Isa) -> int:
        geometry = Geometry.of(node)
        if geometry.padded is None:
            return 0
        return geometry.padded[0] * geometry.padded[1] * node.inputs[0].shape[1] * 4

    @staticmethod
    def _epilogue(node: Node) -> Epilogue:
        op = node.op
        assert isinstance(op, Conv2D | Dense)
        return Epilogue(op.activation, getattr(op, "residual", False))

    def emit(self, step: Step, isa: Isa) -> LayerCode:
        node, schedule = step.node, step.schedule
        x = step.inputs[0]
        geometry = Geometry.of(node, x.pitch)
        epilogue = self._epilogue(node)
        blocks = channel_blocks(
            geometry.channels, schedule.tile[1] // isa.lanes, geometry.depth, isa.lanes
        )
        found = regions(geometry, schedule)
        tail = geometry.run % isa.lanes if isa.lane_fma else 0
        residual_pitch = step.inputs[-1].pitch if epilogue.residual else 0

        def tile(chunk: Chunk, block: ChannelBlock) -> Tile:
            return Tile(chunk.size, block.vectors, block.part, len(geometry.taps), tail)

        def call(chunk: Chunk, block: ChannelBlock) -> str:
            shape = tile(chunk, block)
            values = {
                "kRun": geometry.run,
                "kPixelStep": geometry.pixel_step,
                "kOutStep": step.output.pitch,
                "kResidualStep": residual_pitch,
            }
            if len(geometry.taps) == 1:
                values["kTaps"], values["kTapStep"] = geometry.taps[0]
            elif geometry.taps:
                values["kTapsY"], values["kTapStepY"] = geometry.taps[0]
                values["kTapsX"], values["kTapStepX"] = geometry.taps[1]
            names = shape.template_parameters(epilogue)
            return f"{shape.name(isa, epilogue)}<{', '.join(str(values[n]) for n in names)}>"

        microkernels = [
            tile(chunk, block).microkernel(isa, epilogue)
            for region in found
            for chunk in region.chunks
            for block in blocks
        ]
        if geometry.padded:
            microkernels.append(pad_microkernel())
        name = self._function_name(node, step, epilogue)
        text = render(
            "cpp/kernels/conv_direct.j2",
            name=name,
            step=step,
            geometry=geometry,
            blocks=blocks,
            regions=found,
            call=call,
            epilogue=epilogue,
            lanes=isa.lanes,
            schedule=schedule,
            group_weights=_group_weights(blocks, geometry, isa),
            group_bias=-(-geometry.channels // isa.lanes) * isa.lanes,
            residual_pitch=residual_pitch,
            pad=self._pad_call(node, x.pitch) if geometry.padded else "",
        )
        return LayerCode(name, text, tuple(dict.fromkeys(microkernels)))

    @staticmethod
    def _pad_call(node: Node, pitch: int) -> str:
        op = node.op
        assert isinstance(op, Conv2D)
        _, channels, height, width = node.inputs[0].shape
        padded = Geometry.of(node, pitch).padded
        assert padded is not None
        rows = min(height, padded[0] - op.pads[0])
        columns = min(width, padded[1] - op.pads[1])
        numbers = (rows, columns, channels, width, pitch, op.pads[0], op.pads[1], *padded)
        return f"pad_f32<{', '.join(map(str, numbers))}>"

    @staticmethod
    def _function_name(node: Node, step: Step, epilogue: Epilogue) -> str:
        op = node.op
        pitched = "" if step.output.dense else f"_of_{step.output.pitch}"
        if isinstance(op, Dense):
            rows = math.prod(node.shape[:-1])
            batch = f"_x{rows}" if rows > 1 else ""
            return f"dense_{node.inputs[1].shape[1]}_to_{node.shape[-1]}{batch}{epilogue.suffix}"
        assert isinstance(op, Conv2D)
        _, c, h, w = node.inputs[0].shape
        m, _, kh, kw = node.inputs[1].shape
        parts = [f"conv{kh}x{kw}"]
        parts += [f"s{op.stride[0]}"] if op.stride[0] == op.stride[1] != 1 else []
        parts += [f"s{op.stride[0]}x{op.stride[1]}"] if op.stride[0] != op.stride[1] else []
        parts += [f"d{op.dilation[0]}"] if op.dilation != (1, 1) else []
        parts += [f"g{op.groups}"] if op.groups > 1 else []
        return f"{'_'.join(parts)}_{h}x{w}x{c}_to_{m}{pitched}{epilogue.suffix}"


def _group_weights(blocks: Sequence[ChannelBlock], geometry: Geometry, isa: Isa) -> int:
    """Floats of one group's packed weights."""
    return sum(b.count * b.vectors * isa.lanes * geometry.depth for b in blocks)


def pack_per_channel(values: Array, groups: int, isa: Isa) -> Array:
    """A per-channel array padded with zeros to whole vectors, group by group."""
    grouped = values.astype(np.float32).reshape(groups, -1)
    padding = -grouped.shape[1] % isa.lanes
    return np.pad(grouped, ((0, 0), (0, padding))).reshape(-1)


KERNELS = (ConvDirect(),)
