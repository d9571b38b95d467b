"""Convolutions of 8-bit integers as products: geometry, cost, packing and loops.

As in codegen/gemm/loops.py, the left side of the product is never formed: pixels are equally spaced
in the NHWC input, and the depth is a contiguous run of bytes in a loop over filter taps. Each run
is rounded up to whole groups of a dot product; weights are zero there, and what the activations
are does not matter, so a run may read a few bytes of what follows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from mdlc.codegen.code import Body, Call, Microkernel, Pointer, Value
from mdlc.codegen.gemm.loops import packed_length
from mdlc.codegen.gemm.product_loops import Place, product_loops, row_panels
from mdlc.codegen.gemm.shape import ChannelBlock, Product, Steps, channel_blocks, regions
from mdlc.codegen.isa.base import KernelIsa, int8_of
from mdlc.codegen.isa.int8 import SCALAR, Int8, needs_shift_left, pack_fields
from mdlc.codegen.isa.int8_result import Addition, OutputStage
from mdlc.codegen.kernel import Schedule
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.fixed_point import sum_multipliers
from mdlc.compiler.ir import Node
from mdlc.compiler.op import Op
from mdlc.compiler.ops.quantized_conv2d import QuantizedConv2D
from mdlc.compiler.ops.quantized_dense import QuantizedDense
from mdlc.compiler.types import Array, DType

# Bytes that a product may read behind its input: a vector of activations.
READS_PAST = 64


class ByteTile(Protocol):
    """A register tile of a product of 8-bit integers."""

    def name(self, isa: KernelIsa) -> str:
        """Its C++ name."""

    def parameters(self) -> list[str]:
        """Names of the compile-time integers, in order."""

    def microkernel(self, isa: KernelIsa) -> Microkernel:
        """The C++ of the tile."""


def byte_lanes(isa: KernelIsa) -> int:
    """Channels of one vector of accumulators."""
    return isa.lanes if isa.int8 else 1


def for_bytes(isa: KernelIsa) -> KernelIsa:
    """The ISA with the lanes of its integer vectors, which cutting channels into blocks counts."""
    return isa if isa.int8 else isa.portable


def output_stage(node: Node, int8: Int8) -> OutputStage:
    """What a QuantizedConv2D or QuantizedDense does with its accumulators."""
    op = node.op
    assert isinstance(op, QuantizedConv2D | QuantizedDense)
    source, weights = node.inputs[0].type.dtype, node.inputs[1].constant
    addition = addition_of(node, int8)
    has_min_weight = bool(int8.adds_in_16_bits and weights is not None and weights.min() < -127)
    if op.dtype is DType.I32:
        return OutputStage(source, DType.I32, has_min_weight=has_min_weight)
    shift = node.inputs[4].constant
    assert shift is not None
    return OutputStage(
        source,
        op.dtype,
        op.y_zero,
        op.low,
        op.high,
        needs_shift_left(shift, int8),
        "rounding" in int8.fields,
        has_min_weight,
        int8.narrowing_adds_zero_point
        and op.dtype is DType.I8
        and op.y_zero == -128
        and addition is None,
        addition,
    )


def addition_of(node: Node, int8: Int8) -> Addition | None:
    """The sum with another tensor that stands behind a convolution."""
    op = node.op
    if not isinstance(op, QuantizedConv2D) or op.addition is None:
        return None
    added = op.addition
    kind = node.inputs[-1].type.dtype
    zero_point_folded = "rounding" in int8.fields or int8 is SCALAR
    narrowing_adds_zero_point = (
        int8.narrowing_adds_zero_point and added.dtype is DType.I8 and added.y_zero == -128
    )
    result = OutputStage(
        kind,
        added.dtype,
        added.y_zero,
        added.low,
        added.high,
        zero_point_folded=zero_point_folded,
        narrowing_adds_zero_point=narrowing_adds_zero_point,
        prefix="kSum",
    )
    ma, mb, shift = sum_multipliers(added.a_scale, added.b_scale)
    return Addition(kind, ma, mb, shift, added.b_zero, result)


def check_sums(node: Node) -> None:
    """Raises MdlcError where an accumulator may leave 32 bits."""
    weights, bias = node.inputs[1].constant, node.inputs[2].constant
    assert weights is not None
    assert bias is not None
    largest = 128 if node.inputs[0].type.dtype is DType.I8 else 255
    sums = np.abs(weights.astype(np.int64)).reshape(weights.shape[0], -1).sum(1) * largest
    if np.any(sums + np.abs(bias.astype(np.int64)) >= 2**31):
        raise MdlcError(
            "sums of this layer may leave 32 bits",
            node=f"node {node.name!r}",
            hint="keep it in float",
        )


def pack_weights(
    matrix: Array,
    product: Product,
    run: int,
    schedule: Schedule,
    isa: KernelIsa,
    groups: Sequence[int],
) -> Array:
    """Weights [groups, depth, channels] as [block][tap][group of depth][channel][group].

    Args:
        product: its runs are padded. run: their length before; what is added is zero.
        groups: how a run is cut into groups.
    """
    runs = matrix.reshape(product.groups, -1, run, product.channels)
    padded = np.pad(runs, ((0, 0), (0, 0), (0, product.run - run), (0, 0)))
    cuts = np.cumsum(groups)[:-1]
    panels = []
    for each in padded:  # [tap, run, channel]
        for block in channel_blocks(product, schedule, isa):
            width = block.vectors * isa.lanes
            for index in range(block.count):
                first = block.first + index * width
                part = each[:, :, first : min(first + width, product.channels)]
                panel = np.zeros((*part.shape[:2], width), np.int8)
                panel[:, :, : part.shape[2]] = part
                pieces = [piece.transpose(0, 2, 1) for piece in np.split(panel, cuts, axis=1)]
                rows = [piece.reshape(piece.shape[0], -1) for piece in pieces]
                panels.append(np.concatenate(rows, axis=1).reshape(-1))
    return np.concatenate(panels)


def pack_rescaling(node: Node, product: Product, isa: KernelIsa) -> Array:
    """Bias, and what rescaling needs, of every channel; groups start at whole vectors."""
    int8 = int8_of(isa)
    stage = output_stage(node, int8)
    total = corrected_bias(node, int8)
    multiplier, shift = np.zeros_like(total), np.full_like(total, 33)
    if not stage.int32_output:
        assert node.inputs[3].constant is not None
        assert node.inputs[4].constant is not None
        multiplier, shift = node.inputs[3].constant, node.inputs[4].constant
    fields = int8.used_fields(stage)
    return np.concatenate(
        [
            pack_fields(fields, b, m, s, stage.zero, byte_lanes(isa))
            for b, m, s in zip(
                *(v.reshape(product.groups, -1) for v in (total, multiplier, shift)), strict=True
            )
        ]
    )


def corrected_bias(node: Node, int8: Int8) -> Array:
    """The bias as int64, less what flipping the activations adds to the sums."""
    stage = output_stage(node, int8)
    weights, bias = node.inputs[1].constant, node.inputs[2].constant
    assert weights is not None
    assert bias is not None
    total = bias.astype(np.int64)
    if int8.flips(stage.source):
        sums = weights.astype(np.int64).reshape(weights.shape[0], -1).sum(1)
        total = total + (128 if stage.source is DType.U8 else -128) * sums
        total = (total + 2**31) % 2**32 - 2**31  # sums wrap around, and back
    return total


def byte_product(
    node: Node, *, unit: int, x_pitch: int, y_pitch: int, pad: bool, other_pitch: int = 0
) -> Product:
    """A QuantizedConv2D or QuantizedDense as a product whose runs are multiples of `unit`.

    Args:
        x_pitch, y_pitch: of input and output. other_pitch: of the tensor that is added.
        pad: whether the input is a bordered dense copy.
    """
    x, w = node.inputs[0], node.inputs[1]

    def padded(run: int) -> int:
        return -(-run // unit) * unit

    if isinstance(node.op, QuantizedDense):
        count, depth = math.prod(x.shape[:-1]), x.shape[-1]
        steps = Steps(0, 0, depth if pad else x_pitch, 0), Steps(0, 0, y_pitch, 0)
        return Product(1, 1, count, 1, w.shape[0], padded(depth), (), *steps)
    op = node.op
    assert isinstance(op, QuantizedConv2D)
    images, channels, height, width = x.shape
    filters, per_group, kh, kw = w.shape
    rows, columns = node.shape[2:]
    if pad:
        (height, width), x_pitch = padded_size(node), channels
    joined = kw > 1 and op.dilation[1] == 1 and op.groups == 1 and x_pitch == channels

    def outward(pitch: int) -> Steps:
        return Steps(rows * columns * pitch, columns * pitch, pitch, filters // op.groups)

    taps = [(kh, op.dilation[0] * width * x_pitch)]
    if not joined:
        taps.append((kw, op.dilation[1] * x_pitch))
    return Product(
        images,
        rows,
        columns,
        op.groups,
        filters // op.groups,
        padded(kw * channels if joined else per_group),
        tuple((count, step) for count, step in taps if count > 1),
        Steps(
            0 if pad else height * width * x_pitch,
            op.stride[0] * width * x_pitch,
            op.stride[1] * x_pitch,
            per_group,
        ),
        outward(y_pitch),
        outward(other_pitch or filters) if op.addition else None,
    ).merged()


def run_length(node: Node, x_pitch: int, *, pad: bool) -> int:
    """The contiguous run of the depth before it is rounded up."""
    return byte_product(node, unit=1, x_pitch=x_pitch, y_pitch=1, pad=pad).run


def without_gaps(product: Product, run: int, int8: Int8) -> Product | None:
    """The product as panels hold it whose runs are no whole groups: a first layer's.

    Args:
        run: its runs before they were rounded up.
    """
    panels = int8.depth_loop.panels if int8.depth_loop else None
    if panels is None or product.groups > 1 or len(product.taps) != 1:
        return None
    ((taps, _),) = product.taps
    if not panels.gathers(run, taps, product.x.pixel):
        return None
    return replace(product, run=len(panels.gathered(run, taps)), taps=())


def padded_size(node: Node) -> tuple[int, int]:
    """Height and width that a convolution's windows reach over, borders included."""
    op = node.op
    assert isinstance(op, QuantizedConv2D)
    window = op.window(node.inputs[1].shape[2:])
    down, across = (
        (count - 1) * stride + extent
        for count, stride, extent in zip(node.shape[2:], op.stride, window.extent, strict=True)
    )
    return down, across


def needs_border(node: Node) -> bool:
    """Whether windows reach outside the input."""
    op: Op = node.op
    if not isinstance(op, QuantizedConv2D):
        return False
    down, across = padded_size(node)
    _, _, height, width = node.inputs[0].shape
    return any(op.pads[:2]) or down > height or across > width


def tile_schedules(
    product: Product, isa: KernelIsa, in_panels: Product | None = None
) -> list[Schedule]:
    """Register tiles that fit the registers, with the cache block that suits each.

    Args:
        in_panels: the product as panels hold it, where that is another.
    """
    loop = int8_of(isa).depth_loop
    most = -(-product.channels // isa.lanes)
    found = set()
    for vectors in range(1, min(most, 8 if isa.lanes > 1 else 4) + 1):
        if loop:
            rows = max((r for r in range(1, 15) if loop.fits(r, vectors)), default=0)
        else:
            rows = (isa.registers - vectors - 3) // vectors
        rows = min(rows, product.columns, 14)
        for height in {rows, *(r for r in (4, 6, 7, 8, 12) if r < rows)}:
            if height >= 1:
                tile = (height, vectors * isa.lanes)
                found.add(Schedule("direct", tile, _block(product, height, isa)))
        panels = loop.panels if loop else None
        height = 0
        if panels:
            fitting = (r for r in range(1, panels.rows + 1) if panels.fits(r, vectors))
            height = min(max(fitting, default=0), product.columns)
        # A copy for a tile of fewer pixels is not worth it, nor for few channels.
        if height > 4:
            block = _block(in_panels or product, height, isa, (in_panels or product).depth)
            found.add(Schedule("panels", (height, vectors * isa.lanes), block, panels=True))
    return sorted(found, key=lambda schedule: schedule.tile)


def _block(product: Product, rows: int, isa: KernelIsa, pixel: int = 0) -> tuple[int, ...]:
    """Pixels whose inputs stay in cache while all weights pass by; () for all of them.

    Args:
        pixel: bytes of one, if they are copied.
    """
    weights = product.depth * product.channels
    if weights <= isa.core.l1_bytes // 2:
        return (rows,) if product.rows == 1 else (product.columns,)
    block = max(isa.core.l2_bytes // 2 // max(pixel or product.x.pixel, 1) // rows, 1) * rows
    return () if block >= product.pixels else (block,)


def product_cycles(
    product: Product,
    schedule: Schedule,
    isa: KernelIsa,
    step: Callable[[int, int], float],
    group: int,
    stage: float,
    copy: Callable[[int], float] = lambda rows: 0.0,
) -> float:
    """Estimated cycles on one core: of the arithmetic, or of streaming the weights if more.

    Args:
        step: cycles of one group of the depth in a tile of rows and vectors.
        finish: cycles of rescaling and storing one vector.
        copy: cycles of copying 16 elements of so many pixels into a panel.
    """
    total, together = 0.0, int8_of(isa).rows_at_once
    for region in regions(product, schedule):
        for chunk in region.chunks:
            each = once = 0.0
            for block in channel_blocks(product, schedule, isa):
                each += block.count * step(chunk.size, block.vectors)
                vectors = chunk.size * block.vectors
                # Rows of a few bytes more than whole vectors are narrowed and stored in pieces.
                pieces = 4 if block.part else 2 if block.vectors % together else 0
                once += block.count * (8 + stage * vectors + pieces * chunk.size)
            copied = product.depth / 16 * copy(chunk.size) if schedule.panels else 0.0
            each = product.depth / group * each + once + copied
            total += region.count * region.rows * chunk.count * each
    weights = packed_length(product, schedule, isa) * product.groups
    streamed = weights / isa.core.stream_bytes if weights > isa.core.l2_bytes else 0.0
    total *= product.images * product.groups
    return max(total, streamed) + 0.1 * min(total, streamed)


def copy_cycles(isa: KernelIsa) -> Callable[[int], float]:
    """Cycles of copying 16 elements of so many pixels into a panel."""

    def copy(rows: int) -> float:
        loop = int8_of(isa).depth_loop
        assert loop is not None
        assert loop.panels is not None
        return loop.panels.copy_instructions(rows) / isa.core.issue_width

    return copy


def dot_cycles(isa: KernelIsa, *, panels: bool = False) -> Callable[[int, int], float]:
    """Cycles of one group of the depth, by rows and vectors."""
    int8 = int8_of(isa)
    loop = int8.depth_loop

    def step(rows: int, vectors: int) -> float:
        if panels:
            assert loop is not None
            assert loop.panels is not None
            started = (loop.panels.instructions(rows, vectors) + 2) / isa.core.issue_width
            busy = max(started, loop.panels.products(rows, vectors) / isa.dots_per_cycle)
            return busy * int8.group / 16
        if loop:
            started = (loop.instructions(rows, vectors) + 2) / isa.core.issue_width
            busy = max(started, loop.products(rows, vectors) / isa.dots_per_cycle)
            return busy * int8.group / 16
        dots = rows * vectors
        loads = vectors + rows
        other = 0.0 if isa.lanes == 1 else rows + 2.0
        started = dots * int8.dot_instructions + loads + other / 2
        return max(
            dots / isa.dots_per_cycle,
            loads / isa.loads_per_cycle,
            (started + 1.0) / isa.core.issue_width,
            isa.core.fma_latency if isa.lanes > 1 else 0.0,
        )

    return step


def emit_product(
    product: Product,
    schedule: Schedule,
    isa: KernelIsa,
    stage: OutputStage,
    tile: Callable[[int, ChannelBlock], ByteTile],
    x: str,
    fields: int,
    copy: Callable[[int], Microkernel] | None = None,
    tap_step: int = 0,
) -> Body:
    """The loops around the register tiles inside the loop over images.

    Args:
        tile: the tile for so many pixels and a block of channels.
        x: C++ name of the pointer that product.x counts from.
        fields: vectors of per-channel numbers for each vector of channels.
        copy: the function that copies so many pixels into a panel, if the schedule has panels.
        tap_step: the step between filter rows that it copies without gaps, or 0.
    """
    numbers = {
        "kRun": product.run,
        "kPixelStep": product.x.pixel,
        "kOutStep": product.y.pixel,
        "kOtherStep": product.residual.pixel if product.residual else 0,
        "kDepth": product.depth,
        **stage.parameters,
    }
    if len(product.taps) == 1:
        numbers["kTaps"], numbers["kTapStep"] = product.taps[0]
    elif product.taps:
        numbers["kTapsY"], numbers["kTapStepY"] = product.taps[0]
        numbers["kTapsX"], numbers["kTapStepX"] = product.taps[1]
    group_weights = packed_length(product, schedule, isa)
    group_scale = -(-product.channels // isa.lanes) * isa.lanes * fields

    def panel(place: Place) -> Pointer:
        return place.panel(row_panels(product, schedule, isa, place.region), product.depth)

    def copy_call(place: Place) -> Call:
        loop = int8_of(isa).depth_loop
        assert copy is not None
        assert loop is not None
        assert loop.panels is not None
        listed = loop.panels.copy_parameters(place.chunk.size, len(product.taps))
        values = (tap_step,) if tap_step else tuple(numbers[name] for name in listed)
        return Call(copy(place.chunk.size), (place.at(x, product.x), panel(place)), values)

    def tile_call(place: Place) -> Body:
        shape = tile(place.chunk.size, place.channels)
        arguments: list[Value] = [
            panel(place) if schedule.panels else place.at(x, product.x),
            place.weights("weights", group_weights, product.depth),
            place.channel("scale", group_scale, fields),
        ]
        if product.residual:
            arguments.append(place.at("other", product.residual, 1))
        arguments.append(place.at("y", product.y, 1))
        values = tuple(numbers[name] for name in shape.parameters())
        return (Call(shape.microkernel(isa), tuple(arguments), values),)

    return product_loops(product, schedule, isa, tile_call, copy_call if copy else None)
