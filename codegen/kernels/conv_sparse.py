"""Convolutions and dense layers whose weights are mostly zero: zeros are neither stored nor read.

What is skipped is a block of weights from one input to a few vectors of output channels, so that
the arithmetic stays that of a dense tile; weights pruned in such blocks (`--block 1xN`) lose
nothing, others as far as whole blocks are zero. Which blocks there are is data of the weights
file, not text. ISAs that multiply by lanes read pixels from panels of any convolution; others read
them where they lie, which is for filters of one tap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdlc.codegen.code import (
    Body,
    Call,
    Function,
    Loop,
    Pointer,
    Scope,
    Value,
    Variable,
    body,
    offset,
)
from mdlc.codegen.gemm.loops import pack_matrix, pack_per_channel, tile_numbers
from mdlc.codegen.gemm.shape import ChannelBlock, Product, Steps, channel_blocks
from mdlc.codegen.gemm.split import Chunk, split_evenly
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Kernel, Schedule, Step
from mdlc.codegen.kernels.conv_direct import conv_border, conv_product, conv_stem, epilogue_of
from mdlc.codegen.threads import best_level, loop
from mdlc.codegen.tiles.epilogue import Epilogue
from mdlc.codegen.tiles.gemm_panels import PackTile, pack_instructions, packed_depth
from mdlc.codegen.tiles.gemm_sparse import GROUP, SparseTile
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.dense import Dense
from mdlc.compiler.types import Array, DType

# Layers with a smaller share of zeros are not looked at.
LEAST_ZEROS = 0.25
# Inputs are numbered in 16 bits.
_MAX_DEPTH = 1 << 16
# Cycles lost where a loop over blocks ends: how many there are is not known when it is compiled.
_LOOP_END = 12.0
# More pixels than these gain nothing where each is a load of its own.
_MAX_ROWS = 16
# What estimates fall short of measurements by, more than those of dense tiles: a sparse layer is
# to be faster in fact.
_SHORTFALL = 1.05


@dataclass(frozen=True)
class _Packed:
    """Blocks of weights [blocks][width], their inputs, and the blocks of each width channels."""

    weights: Array
    inputs: Array
    counts: Array


class ConvSparse(Kernel):
    """Blocks of weights that are not zero, one after the other."""

    name = "conv_sparse"
    layer = "Convolution"
    pitched_input = True
    pitched_output = True
    numbers = "inputs"

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        if not isinstance(node.op, Conv2D | Dense):
            return False
        if node.type.dtype is not DType.F32 or node.inputs[0].type.dtype is not DType.F32:
            return False
        if any(source.constant is None for source in node.inputs[1:3]):
            return False
        if isinstance(node.op, Conv2D) and node.op.groups > 1:
            return False
        if isinstance(node.op, Conv2D) and not isa.panels and node.inputs[1].shape[2:] != (1, 1):
            return False
        weights = node.inputs[1].constant
        assert weights is not None
        if weights.dtype != np.float32 or _depth(conv_product(node), isa) >= _MAX_DEPTH:
            return False
        return bool(np.count_nonzero(weights) <= (1 - LEAST_ZEROS) * weights.size)

    def schedules(self, node: Node, isa: KernelIsa) -> Sequence[Schedule]:
        product = conv_product(node)
        panels = isa.panels is not None
        found = []
        for vectors in range(1, min(4, -(-product.channels // isa.lanes)) + 1):
            if panels:
                most = next(
                    rows
                    for rows in range(6 * GROUP, 0, -GROUP)
                    if rows * vectors + rows // GROUP + vectors <= isa.registers
                )
                heights = {most, most // 2 // GROUP * GROUP} - {0}
            else:
                most = max(1, min((isa.registers - vectors - 1) // vectors, _MAX_ROWS))
                heights = {most, -(-most // 2)}
            for rows in sorted({min(rows, product.columns) for rows in heights}):
                found.append(Schedule("sparse", (rows, vectors * isa.lanes), panels=panels))
        return found

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        product = conv_product(node)
        depth = _depth(product, isa)
        matrix = _matrix(node)
        blocks = channel_blocks(product, schedule, isa)
        copied = 0.0
        if isinstance(node.op, Conv2D) and conv_border(node, node.inputs[0].shape[1]):
            copied = node.inputs[0].type.size / isa.lanes * 2
        total = 0.0
        kept = [
            (block.vectors, block.count, int(_present(matrix, block, isa).sum()), block.part)
            for block in blocks
        ]
        for chunk in _chunks(product, schedule):
            busy = 0.0
            for vectors, count, present, part in kept:
                fmas = chunk.size * vectors
                busy += present * _block_cycles(chunk.size, vectors, schedule, isa)
                ends = 6 + 3 * fmas + (8 * chunk.size if part else 0)
                busy += count * (ends + _LOOP_END)
            if schedule.panels:
                groups = -(-chunk.size // GROUP)
                busy += depth * groups * pack_instructions(GROUP, isa) / isa.core.issue_width
            total += chunk.count * busy
        total *= product.images * product.rows * _SHORTFALL
        packed = sum(present * vectors for vectors, _, present, _ in kept) * isa.lanes * 4
        streamed = packed / isa.core.stream_bytes if packed > isa.core.l2_bytes else 0.0
        return max(total, streamed) + 0.1 * min(total, streamed) + copied

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        weights = node.inputs[1].constant
        assert weights is not None
        return self.repack(node, weights, schedule, isa)

    def repack(
        self, node: Node, weights: Array, schedule: Schedule, isa: KernelIsa
    ) -> dict[str, Array]:
        product = conv_product(node)
        bias = node.inputs[2].constant
        assert bias is not None
        found = _packed(_matrix(node), _matrix_of(weights), product, schedule, isa)
        packed = {
            "weights": found.weights,
            "inputs": found.inputs,
            "counts": found.counts,
            "bias": pack_per_channel(bias, 1, isa),
        }
        if epilogue_of(node).slope:
            slope = node.inputs[3].constant
            assert slope is not None
            packed["slope"] = pack_per_channel(slope, 1, isa)
        return packed

    def scratch(self, node: Node, schedule: Schedule, isa: KernelIsa) -> int:
        return 4 * (self._padded_floats(node) + _panel_floats(conv_product(node), schedule, isa))

    def thread_scratch(self, node: Node, schedule: Schedule, isa: KernelIsa) -> int:
        return 4 * _panel_floats(conv_product(node), schedule, isa)

    @staticmethod
    def _padded_floats(node: Node) -> int:
        """Floats of the padded copy, up to a cache line."""
        border = None
        if isinstance(node.op, Conv2D):
            border = conv_border(node, node.inputs[0].shape[1])
        return -(-border.elements // 16) * 16 if border else 0

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, schedule = step.node, step.schedule
        x, y = step.inputs[0], step.output
        epilogue = epilogue_of(node)
        border = conv_border(node, x.pitch) if isinstance(node.op, Conv2D) else None
        product = conv_product(
            node, x.pitch, y.pitch, step.inputs[-1].pitch if epilogue.residual else 0
        )
        blocks = channel_blocks(product, schedule, isa)
        chunks = _chunks(product, schedule)
        depth = _depth(product, isa)
        values = {
            "kPixelStep": depth * GROUP if schedule.panels else product.x.pixel,
            "kOutStep": product.y.pixel,
            "kResidualStep": product.residual.pixel if product.residual else 0,
        }
        width = schedule.tile[1]
        level = best_level(
            [("row", product.rows), ("column", max(chunk.count for chunk in chunks))]
        )
        own = _panel_floats(product, schedule, isa) if schedule.panels else 0

        def at(base: str, steps: Steps, chunk: Chunk) -> Pointer:
            return offset(
                base,
                (product.images, "image", steps.image),
                (product.rows, "row", steps.row),
                (chunk.count, "column", chunk.size * steps.pixel),
                fixed=chunk.first * steps.pixel,
            )

        def copies(chunk: Chunk) -> list[Call]:
            """The pixels of a tile into panels, a group of them at a time."""
            found = []
            values = tile_numbers(product, product.run, product.taps)
            for first in range(0, chunk.size, GROUP):
                pack = _pack_tile(min(GROUP, chunk.size - first), product)
                places = at(x_name, product.x, chunk) + first * product.x.pixel
                numbers = tuple(values[name] for name in pack.template_parameters(isa))
                target = Pointer("a", fixed=first * depth)
                found.append(Call(pack.microkernel(isa), (places, target), numbers))
            return found

        def block(chunk: Chunk, channels: ChannelBlock, number: int) -> Body:
            """The products of one block of channels, or of several equal ones in a loop."""
            tile = SparseTile(chunk.size, channels.vectors, channels.part, schedule.panels)
            several, last = channels.count > 1, channels is blocks[-1]
            count = "count" if several else f"count{number}"
            where = (channels.count, "n", width)
            arguments: list[Value] = ["a", "b", "k", count]
            for base in ["bias", *(["slope"] if epilogue.slope else [])]:
                arguments.append(offset(base, where, fixed=channels.first))
            for base, steps in (("residual", product.residual), ("y", product.y)):
                if steps:
                    place = at(base, steps, chunk) + channels.first
                    arguments.append(place.plus("n", width) if several else place)
            numbers = tuple(values[name] for name in tile.template_parameters(epilogue))
            call = Call(tile.microkernel(isa, epilogue), tuple(arguments), numbers)
            moved = [f"b += {count} * {width};", f"k += {count};"] if several or not last else []
            index = "n" if several else channels.first // width
            inside = body(f"const int {count} = counts[{index}];", call, moved)
            return loop("n", channels.count, inside)

        def pixels(chunk: Chunk) -> Body:
            mine = level == "row" or (level == "column" and chunk.count > 1)
            x_at = at(x_name, product.x, chunk)
            panels = Pointer(start, own=own if mine else 0)
            left = (
                Variable("float*", "a", panels)
                if schedule.panels
                else Variable("const float*", "a", x_at)
            )
            inside = body(
                left,
                copies(chunk) if own else (),
                "const float* b = weights;",
                "const std::uint16_t* k = inputs;",
                *(block(chunk, each, number) for number, each in enumerate(blocks)),
            )
            if chunk.count == 1:
                return (Scope(inside),)
            return loop("column", chunk.count, inside, shared=level == "column")

        x_name, padded = "padded" if border else "x", self._padded_floats(node)
        start = f"padded + {padded}" if padded else "reinterpret_cast<float*>(scratch)"
        image = offset("x", (product.images, "image", x.rows // product.images * x.pitch))
        rows = loop("row", product.rows, body(*map(pixels, chunks)), shared=level == "row")
        declared = "float* padded = reinterpret_cast<float*>(scratch);"
        return step.function(
            self._function_name(step, epilogue),
            declared if border else (),
            Loop("image", product.images, body(border.code(image, isa) if border else (), rows)),
            comment=[
                f"{schedule}: blocks of {width} output channels that are not zero, "
                f"[block][{width}], the input of",
                f"each in `inputs`, and how many there are for each {width} channels in `counts`.",
            ],
            inputs=("x", "residual")[: len(step.inputs)],
            scratch=bool(border or schedule.panels),
            includes=("cstdint",),
        )

    @staticmethod
    def _function_name(step: Step, epilogue: Epilogue) -> str:
        node = step.node
        if isinstance(node.op, Dense):
            x, y = node.inputs[0].type, node.type
            rows = y.size // y.shape[-1]
            batch = f"_x{rows}" if rows > 1 else ""
            return f"sparse_dense_{x.shape[-1]}_to_{y.shape[-1]}{batch}{epilogue.suffix}"
        return f"sparse_{conv_stem(node)}{epilogue.suffix}"


def _pack_tile(rows: int, product: Product) -> PackTile:
    return PackTile(rows, tuple(count for count, _ in product.taps), product.run)


def _depth(product: Product, isa: KernelIsa) -> int:
    """The depth as inputs are numbered."""
    taps = product.depth // product.run
    return packed_depth(product.run, taps, isa) if isa.panels else product.depth


def _panel_floats(product: Product, schedule: Schedule, isa: KernelIsa) -> int:
    """Floats of the panels of the pixels of one tile."""
    if not schedule.panels:
        return 0
    rows = -(-schedule.tile[0] // GROUP) * GROUP
    return rows * product.packed_depth(schedule, isa)


def _chunks(product: Product, schedule: Schedule) -> tuple[Chunk, ...]:
    """The pixels of a row: whole tiles and a rest, which wastes less of panels than even ones."""
    if not schedule.panels:
        return split_evenly(product.columns, schedule.tile[0])
    count, rest = divmod(product.columns, schedule.tile[0])
    found = [Chunk(0, schedule.tile[0], count)] if count else []
    return (*found, *([Chunk(product.columns - rest, rest, 1)] if rest else []))


def _block_cycles(rows: int, vectors: int, schedule: Schedule, isa: KernelIsa) -> float:
    """Cycles of one block of weights."""
    fmas = rows * vectors
    loads = vectors + (-(-rows // GROUP) if schedule.panels else rows)
    started = fmas + loads + 4  # its input's number and address, the loop's end
    loads += 1
    return max(
        fmas / isa.fma_per_cycle,
        loads / isa.loads_per_cycle,
        started / isa.core.issue_width,
        isa.core.fma_latency,
    )


def _matrix(node: Node) -> Array:
    weights = node.inputs[1].constant
    assert weights is not None
    return _matrix_of(weights)


def _matrix_of(weights: Array) -> Array:
    """Weights as [depth, channels]; the depth runs over kH, kW, C as the input does."""
    if weights.ndim == 4:
        weights = weights.transpose(0, 2, 3, 1)
    return weights.reshape(len(weights), -1).T


def _present(matrix: Array, block: ChannelBlock, isa: KernelIsa) -> Array:
    """Which blocks [depth, count] of neighbouring blocks of channels are not all zero."""
    width = block.vectors * isa.lanes
    part = matrix[:, block.first : block.first + block.count * width] != 0
    part = np.pad(part, ((0, 0), (0, block.count * width - part.shape[1])))
    return np.asarray(part.reshape(len(matrix), block.count, width).any(2))


def _packed(
    pattern: Array, matrix: Array, product: Product, schedule: Schedule, isa: KernelIsa
) -> _Packed:
    """The blocks of a matrix [depth, channels] that are not zero in `pattern`, in call order."""
    blocks = channel_blocks(product, schedule, isa)
    depth = product.packed_depth(schedule, isa)
    panels = pack_matrix(matrix[None].astype(np.float32), product, schedule, isa)
    filled = pack_matrix((pattern != 0)[None].astype(np.float32), product, schedule, isa)
    weights, inputs, counts, at = [], [], [], 0
    for block in blocks:
        width = block.vectors * isa.lanes
        for _ in range(block.count):
            panel = panels[at : at + depth * width].reshape(depth, width)
            used = filled[at : at + depth * width].reshape(depth, width).any(1)
            at += depth * width
            (kept,) = np.nonzero(used)
            weights.append(panel[kept].reshape(-1))
            inputs.append(kept)
            counts.append(len(kept))
    return _Packed(
        np.concatenate(weights),
        np.concatenate(inputs).astype(np.uint16),
        np.array(counts, np.uint16),
    )


KERNELS = (ConvSparse(),)
