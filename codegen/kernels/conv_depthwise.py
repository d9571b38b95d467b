"""Depthwise convolution in NHWC: vectors of channels, a few pixels of a row in registers.

Padding costs nothing: rows and columns outside the input are known when the code is emitted,
and tiles at the borders simply lack those taps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mdlc.codegen.code import Call, Function, Loop, Value, body, offset
from mdlc.codegen.gemm.loops import pack_per_channel
from mdlc.codegen.gemm.runs import Run, group_runs, inside_taps
from mdlc.codegen.gemm.split import split_evenly
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Kernel, Schedule, Step
from mdlc.codegen.threads import loop
from mdlc.codegen.tiles.depthwise import DepthwiseTile
from mdlc.codegen.tiles.epilogue import Epilogue
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.types import Array


class ConvDepthwise(Kernel):
    """One filter per channel."""

    name = "conv_depthwise"
    layer = "ConvolutionDepthWise"
    pitched_input = True
    pitched_output = True
    banded = True

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        op = node.op
        if not isinstance(op, Conv2D) or {node.type.dtype, node.inputs[0].type.dtype} != {
            isa.dtype
        }:
            return False
        if any(source.constant is None for source in node.inputs[1:3]):
            return False
        channels = node.inputs[0].shape[1]
        return op.groups == channels == node.shape[1]

    def schedules(self, node: Node, isa: KernelIsa) -> Sequence[Schedule]:
        kernel = node.inputs[1].shape[3]
        # Beside the accumulators: a row of the filter, and the inputs that compilers load ahead.
        most = max(1, min(node.shape[3], isa.registers - 2 * kernel - 2, 16))
        sizes = {most, *(size for size in (2, 4, 7, 8, 14) if size < most)}
        return [Schedule("rows", (size, isa.lanes)) for size in sorted(sizes)]

    def _row_runs(self, node: Node) -> list[Run]:
        """Output rows with the same filter rows inside the input: kind is (first tap, taps)."""
        op = node.op
        assert isinstance(op, Conv2D)
        height, kh = node.inputs[0].shape[2], node.inputs[1].shape[2]
        kinds = [
            (row, inside_taps(row * op.stride[0] - op.pads[0], kh, op.dilation[0], height))
            for row in range(node.shape[2])
        ]
        return group_runs(kinds)

    def _tile_runs(self, node: Node, schedule: Schedule) -> list[Run]:
        """Tiles of a row: kind is (pixels, left, right); positions are first pixels."""
        op = node.op
        assert isinstance(op, Conv2D)
        width, kw = node.inputs[0].shape[3], node.inputs[1].shape[3]
        kinds = []
        for chunk in split_evenly(node.shape[3], schedule.tile[0]):
            for index in range(chunk.count):
                first = chunk.first + index * chunk.size
                start = first * op.stride[1] - op.pads[1]
                end = start + (chunk.size - 1) * op.stride[1] + (kw - 1) * op.dilation[1] + 1
                kinds.append((first, (chunk.size, max(0, -start), max(0, end - width))))
        return group_runs(kinds)

    def _tile(self, node: Node, rows: int, kind: Sequence[int], part: int = 0) -> DepthwiseTile:
        op = node.op
        assert isinstance(op, Conv2D)
        kh, kw = node.inputs[1].shape[2:]
        size, left, right = kind
        return DepthwiseTile(size, rows, kw, kh, op.stride[1], op.dilation[1], left, right, part)

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        cycles = 0.0
        vectors = -(-node.shape[1] // isa.lanes)
        for rows in self._row_runs(node):
            for tiles in self._tile_runs(node, schedule):
                tile = self._tile(node, rows.kind[1], tiles.kind)
                uses = tile.uses()
                fmas = tile.rows * sum(len(pairs) for pairs in uses.values())
                loads = tile.rows * (len(uses) + tile.kernel)
                busy = max(
                    fmas / isa.fma_per_cycle,
                    loads / isa.loads_per_cycle,
                    (fmas + loads + 3 * tile.pixels) / isa.core.issue_width,
                )
                cycles += rows.count * tiles.count * (4 + vectors * (busy + tile.pixels + 3))
        return cycles * node.shape[0]

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        weights, bias = node.inputs[1].constant, node.inputs[2].constant
        assert weights is not None
        assert bias is not None
        channels, _, kh, kw = weights.shape
        padding = -channels % isa.lanes
        taps = np.pad(weights.reshape(channels, kh * kw), ((0, padding), (0, 0)))
        taps = taps.reshape(-1, isa.lanes, kh * kw).transpose(0, 2, 1)
        packed = {
            "weights": np.ascontiguousarray(taps, isa.dtype.numpy).reshape(-1),
            "bias": pack_per_channel(bias, 1, isa),
        }
        if self._epilogue(node).slope:
            slope = node.inputs[3].constant
            assert slope is not None
            packed["slope"] = pack_per_channel(slope, 1, isa)
        return packed

    @staticmethod
    def _epilogue(node: Node) -> Epilogue:
        assert isinstance(node.op, Conv2D)
        return Epilogue(node.op.activation, node.op.residual)

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, x, y = step.node, step.inputs[0], step.output
        op = node.op
        assert isinstance(op, Conv2D)
        epilogue = self._epilogue(node)
        _, channels, height, width = node.inputs[0].shape
        kh, kw = node.inputs[1].shape[2:]
        row_runs, tile_runs = self._row_runs(node), self._tile_runs(node, step.schedule)
        vectors, part = divmod(channels, isa.lanes)
        residual_pitch = step.inputs[-1].pitch if epilogue.residual else 0
        values = {
            "kVectors": vectors,
            "kRowStep": op.dilation[0] * width * x.pitch,
            "kPixelStep": x.pitch,
            "kOutStep": y.pitch,
            "kResidualStep": residual_pitch,
        }
        widths = ([0] if vectors else []) + ([part] if part else [])

        def calls(rows: Run, tiles: Run) -> list[Call]:
            """One call for the whole vectors, one for the rest of the channels."""
            first_tap, taps = rows.kind
            found = []
            for remainder in widths:
                tile = self._tile(node, taps, tiles.kind, remainder)
                skipped = vectors * isa.lanes if remainder else 0
                parameters = tile.template_parameters(epilogue)
                numbers = tuple({**values, **tile.numbers}[n] for n in parameters)
                column = tiles.first * op.stride[1] - op.pads[1] + tile.left
                line = rows.first * op.stride[0] - op.pads[0] + first_tap * op.dilation[0]
                arguments: list[Value] = []
                if not (tile.uses() and taps):
                    arguments += ["x", "weights"]  # which it does not read
                else:
                    arguments.append(
                        offset(
                            "x",
                            (node.shape[0], "image", height * width * x.pitch),
                            (rows.count, "row", op.stride[0] * width * x.pitch),
                            (tiles.count, "tile", tiles.kind[0] * op.stride[1] * x.pitch),
                            fixed=(line * width + column) * x.pitch + skipped,
                        )
                    )
                    tap_offset = first_tap * kw * isa.lanes + skipped * kh * kw
                    arguments.append(offset("weights", fixed=tap_offset))
                arguments.append(offset("bias", fixed=skipped))
                if epilogue.slope:
                    arguments.append(offset("slope", fixed=skipped))
                for base, pitch in (("residual", residual_pitch), ("y", y.pitch)):
                    if pitch:
                        arguments.append(
                            offset(
                                base,
                                (node.shape[0], "image", node.shape[2] * node.shape[3] * pitch),
                                (rows.count, "row", node.shape[3] * pitch),
                                (tiles.count, "tile", tiles.kind[0] * pitch),
                                fixed=(rows.first * node.shape[3] + tiles.first) * pitch + skipped,
                            )
                        )
                found.append(Call(tile.microkernel(isa, epilogue), tuple(arguments), numbers))
            return found

        stride = f"s{op.stride[0]}" if op.stride != (1, 1) else ""
        dilation = f"d{op.dilation[0]}" if op.dilation != (1, 1) else ""
        name = f"dwconv{kh}x{kw}{stride}{dilation}_{height}x{width}x{channels}{epilogue.suffix}"
        loops = [
            loop(
                "row",
                rows.count,
                body(*(Loop("tile", tiles.count, body(calls(rows, tiles))) for tiles in tile_runs)),
                shared=True,
            )
            for rows in row_runs
        ]
        return step.function(
            name,
            Loop("image", node.shape[0], body(*loops)),
            comment=[
                f"{step.schedule}: weights packed as [channels / {isa.lanes}][tap][{isa.lanes}]."
            ],
            inputs=("x", "residual")[: len(step.inputs)],
        )


KERNELS = (ConvDepthwise(),)
