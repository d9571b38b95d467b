"""Depthwise convolution of 8-bit integers in NHWC: blocks of channels, a few pixels of a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdlc.codegen.code import C_TYPES, Body, Call, Function, Loop, Value, body, offset
from mdlc.codegen.gemm.loops_int8 import READS_PAST, check_sums, corrected_bias, output_stage
from mdlc.codegen.gemm.runs import Run, group_runs, inside_taps
from mdlc.codegen.gemm.split import split_evenly
from mdlc.codegen.isa.base import KernelIsa, int8_of
from mdlc.codegen.isa.int8 import DepthwiseForm, Taps
from mdlc.codegen.kernel import Kernel, Schedule, Step
from mdlc.codegen.threads import loop
from mdlc.codegen.tiles.depthwise_int8 import DepthwiseTile, pack_scale
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.quantized_conv2d import QuantizedConv2D
from mdlc.compiler.types import Array, DType


@dataclass(frozen=True)
class Blocks:
    """Neighbouring blocks of channels of one form: how many, and where they start.

    Attributes:
        part: channels used of the one block; 0: all of each.
        weights, scale: elements before theirs in the packed arrays.
    """

    form: DepthwiseForm
    first: int
    count: int
    part: int
    weights: int
    scale: int


class QuantizedDepthwise(Kernel):
    """One filter per channel; its rows are the elements of dot products."""

    name = "quantized_depthwise"
    layer = "QuantizedConvolutionDepthWise"
    pitched_output = True
    reads_past = READS_PAST

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        op = node.op
        if not isinstance(op, QuantizedConv2D) or op.dtype is DType.I32 or op.addition:
            return False
        if any(source.constant is None for source in node.inputs[1:]):
            return False
        if not int8_of(isa).depthwise:
            return False
        return op.groups == node.inputs[0].shape[1] == node.shape[1]

    def schedules(self, node: Node, isa: KernelIsa) -> Sequence[Schedule]:
        most = min(node.shape[3], 8)
        channels = int8_of(isa).depthwise[0].channels
        sizes = {most, *(size for size in (2, 4, 7) if size < most)}
        return [Schedule("rows", (size, channels)) for size in sorted(sizes)]

    @staticmethod
    def _taps(node: Node) -> Taps:
        assert isinstance(node.op, QuantizedConv2D)
        kh, kw = node.inputs[1].shape[2:]
        return Taps(kh, kw, node.op.stride[1], node.op.dilation[1])

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        int8, taps = int8_of(isa), self._taps(node)
        pixels = schedule.tile[0]
        span = (pixels - 1) * taps.stride + (taps.columns - 1) * taps.dilation + 1
        total = 0.0
        for blocks in self._blocks(node, isa):
            column, tap = blocks.form.instructions(taps)
            stage = int8.requantize_instructions / 2 * blocks.form.vectors
            tile = span * column + pixels * (taps.columns * tap + stage) + 20
            total += blocks.count * tile / isa.core.issue_width
        return total * node.shape[0] * node.shape[2] * -(-node.shape[3] // pixels)

    def _blocks(self, node: Node, isa: KernelIsa) -> list[Blocks]:
        """Channels cut into blocks, of the widest forms first."""
        int8, taps = int8_of(isa), self._taps(node)
        fields = len(int8.used_fields(output_stage(node, int8)))
        channels, first, weights, scale = node.shape[1], 0, 0, 0
        found = []

        def add(form: DepthwiseForm, count: int, part: int = 0) -> None:
            nonlocal first, weights, scale
            found.append(Blocks(form, first, count, part, weights, scale))
            first += count * form.channels
            size = form.pack(np.zeros((form.channels, taps.rows, taps.columns), np.int8)).size
            weights += count * size
            scale += count * form.channels * fields

        for form in int8.depthwise:
            count = (channels - first) // form.channels
            if count:
                add(form, count)
        if first < channels:
            add(int8.depthwise[-1], 1, channels - first)
        return found

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        check_sums(node)
        int8 = int8_of(isa)
        stage = output_stage(node, int8)
        filters = node.inputs[1].constant
        assert filters is not None
        numbers = [corrected_bias(node, int8)]
        numbers += [s.constant for s in node.inputs[3:] if s.constant is not None]
        weights, scale = [], []
        for blocks in self._blocks(node, isa):
            for index in range(blocks.count):
                start = blocks.first + index * blocks.form.channels
                end = start + (blocks.part or blocks.form.channels)
                weights.append(blocks.form.pack(filters[start:end, 0]))
                values = [v[start:end] for v in numbers]
                fields = int8.used_fields(stage)
                scale.append(pack_scale(blocks.form, fields, values, stage.zero))
        return {"weights": np.concatenate(weights), "scale": np.concatenate(scale)}

    @staticmethod
    def _reaches_out(node: Node) -> bool:
        op = node.op
        assert isinstance(op, QuantizedConv2D)
        window = op.window(node.inputs[1].shape[2:])
        return any(
            (count - 1) * stride + extent > length
            for count, stride, extent, length in zip(
                node.shape[2:], op.stride, window.extent, node.inputs[0].shape[2:], strict=True
            )
        )

    def scratch(self, node: Node, schedule: Schedule, isa: KernelIsa) -> int:
        tile = DepthwiseTile(
            int8_of(isa).depthwise[0], self._taps(node), schedule.tile[0], 0, 0, 0,
            output_stage(node, int8_of(isa)),
        )  # fmt: skip
        assert isinstance(node.op, QuantizedConv2D)
        if not any(node.op.pads) and not self._reaches_out(node):
            return 0
        return -(-(tile.span * node.inputs[0].shape[1] + READS_PAST) // 64) * 64

    def _row_runs(self, node: Node) -> list[Run]:
        """Output rows with the same filter rows inside the input: kind is (first tap, taps)."""
        op = node.op
        assert isinstance(op, QuantizedConv2D)
        height, kh = node.inputs[0].shape[2], node.inputs[1].shape[2]
        return group_runs(
            [
                (row, inside_taps(row * op.stride[0] - op.pads[0], kh, op.dilation[0], height))
                for row in range(node.shape[2])
            ]
        )

    def _tile_runs(self, node: Node, schedule: Schedule) -> list[Run]:
        """Tiles of a row: kind is (pixels, left, right); positions are first pixels."""
        op, taps, width = node.op, self._taps(node), node.inputs[0].shape[3]
        assert isinstance(op, QuantizedConv2D)
        kinds = []
        for chunk in split_evenly(node.shape[3], schedule.tile[0]):
            for index in range(chunk.count):
                first = chunk.first + index * chunk.size
                start = first * taps.stride - op.pads[1]
                end = start + (chunk.size - 1) * taps.stride
                end += (taps.columns - 1) * taps.dilation + 1
                span = end - start
                left, right = min(span, max(0, -start)), min(span, max(0, end - width))
                kinds.append((first, (chunk.size, left, right)))
        return group_runs(kinds)

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, y, op = step.node, step.output, step.node.op
        assert isinstance(op, QuantizedConv2D)
        stage, taps = output_stage(node, int8_of(isa)), self._taps(node)
        images, channels, height, width = node.inputs[0].shape
        rows, columns = node.shape[2:]
        scratch = step.scratch is not None
        loops: list[Body] = []
        step_values = {"kPixelStep": channels, "kOutStep": y.pitch, **stage.parameters}

        def call(down: Run, across: Run, blocks: Blocks) -> Call:
            pixels, left, right = across.kind
            tile = DepthwiseTile(blocks.form, taps, pixels, left, right, blocks.part, stage)
            values = {**step_values, "kLeft": left, "kRight": right, "kBlocks": blocks.count}
            template = tuple(values[name] for name in tile.parameters())
            column = across.first * taps.stride - op.pads[1]
            arguments: list[Value] = []
            for tap in range(taps.rows):
                if not down.kind[0] <= tap < down.kind[0] + down.kind[1]:
                    arguments.append(offset("outside", fixed=blocks.first))
                    continue
                line = down.first * op.stride[0] - op.pads[0] + tap * op.dilation[0]
                arguments.append(
                    offset(
                        "x",
                        (images, "image", height * width * channels),
                        (down.count, "row", op.stride[0] * width * channels),
                        (across.count, "tile", pixels * taps.stride * channels),
                        fixed=(line * width + column) * channels + blocks.first,
                    )
                )
            if "kLeft" in tile.parameters():
                arguments.append("outside" if left or right else "nullptr")
            arguments.append(offset("weights", fixed=blocks.weights))
            arguments.append(offset("scale", fixed=blocks.scale))
            arguments.append(
                offset(
                    "y",
                    (images, "image", rows * columns * y.pitch),
                    (down.count, "row", columns * y.pitch),
                    (across.count, "tile", pixels * y.pitch),
                    fixed=(down.first * columns + across.first) * y.pitch + blocks.first,
                )
            )
            return Call(tile.microkernel(isa), tuple(arguments), template)

        tile_runs = self._tile_runs(node, step.schedule)
        for down in self._row_runs(node):
            calls = [
                Loop("tile", run.count, tuple(call(down, run, b) for b in self._blocks(node, isa)))
                for run in tile_runs
            ]
            loops.append(loop("row", down.count, tuple(calls), shared=True))
        source = C_TYPES[stage.source]
        kh, kw = node.inputs[1].shape[2:]
        stride = f"s{op.stride[0]}" if op.stride != (1, 1) else ""
        dilation = f"d{op.dilation[0]}" if op.dilation != (1, 1) else ""
        name = f"qdwconv{kh}x{kw}{stride}{dilation}_{height}x{width}x{channels}"
        head = []
        if scratch:
            assert step.scratch is not None
            size = step.scratch.type.size
            head.append(f"std::memset(scratch, {op.x_zero & 255}, {size});")
            head.append(f"const {source}* outside = reinterpret_cast<const {source}*>(scratch);")
        return step.function(
            name,
            head,
            Loop("image", images, body(*loops)),
            comment=[f"{step.schedule}: filter rows are the elements of dot products."],
            scratch=scratch,
            includes=("cstring",),
        )


KERNELS = (QuantizedDepthwise(),)
