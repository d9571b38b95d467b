"""The geometry of convolutions: windows, tiles of pixels, and how they are read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdlc.codegen.metal.image import LANES, Image
from mdlc.codegen.metal.index import Index
from mdlc.codegen.metal.kernel import FULL_REGISTERS
from mdlc.codegen.metal.parts import as_vector
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.dense import Dense
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Shape:
    """A convolution's geometry, of a Conv2D or a Dense.

    Attributes:
        depth: slices of input that one output slice needs.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilation: tuple[int, int]
    groups: int
    inputs: int
    outputs: int
    size: tuple[int, int]
    out: tuple[int, int]

    @staticmethod
    def of(node: Node) -> Shape:
        """Of a node that a convolution kernel matches."""
        if isinstance(node.op, Dense):
            x, y = Image.of(node.inputs[0].type), Image.of(node.type)
            depth = node.inputs[1].shape[1]
            if x.channels != depth:  # the whole image, flattened (lowering._fold_flattening)
                return Shape((x.height, x.width), (1, 1), (0, 0, 0, 0), (1, 1), 1, x.channels,
                             y.channels, (x.height, x.width), (1, 1))  # fmt: skip
            return Shape((1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1, x.channels, y.channels,
                         (x.height, x.width), (y.height, y.width))  # fmt: skip
        op = node.op
        assert isinstance(op, Conv2D)
        w = node.inputs[1].shape
        x_shape = node.inputs[0].shape
        return Shape(
            (w[2], w[3]), op.stride, op.pads, op.dilation, op.groups, x_shape[1], w[0],
            (x_shape[2], x_shape[3]), (node.shape[2], node.shape[3]),
        )  # fmt: skip

    @property
    def padded(self) -> bool:
        """Whether a window reaches outside the image."""
        for axis in range(2):
            last = (self.out[axis] - 1) * self.stride[axis] - self.pads[axis]
            last += (self.kernel[axis] - 1) * self.dilation[axis]
            if self.pads[axis] or last >= self.size[axis]:
                return True
        return False

    @property
    def in_slices(self) -> int:
        """Slices of the input."""
        return -(-self.inputs // LANES)

    @property
    def out_slices(self) -> int:
        """Slices of the output."""
        return -(-self.outputs // LANES)

    def first_slice(self, slice_: int) -> int:
        """The first input slice that an output slice needs."""
        if self.groups == 1:
            return 0
        per_out, per_in = self.outputs // self.groups, self.inputs // self.groups
        return min(slice_ * LANES // per_out * per_in // LANES, self.in_slices - self.depth)

    @property
    def depth(self) -> int:
        """Slices of input that one output slice reads."""
        if self.groups == 1:
            return self.in_slices
        per_out, per_in = self.outputs // self.groups, self.inputs // self.groups
        most = 1
        for slice_ in range(self.out_slices):
            low = slice_ * LANES // per_out * per_in // LANES
            last = min(slice_ * LANES + LANES, self.outputs) - 1
            high = ((last // per_out + 1) * per_in - 1) // LANES
            most = max(most, high - low + 1)
        return most

    def first_text(self, slice_: Index) -> Index:
        """`first_slice` as an expression."""
        if self.groups == 1:
            return Index.of(0)
        per_out, per_in = self.outputs // self.groups, self.inputs // self.groups
        first = slice_ * LANES // per_out * per_in // LANES
        most = self.in_slices - self.depth
        return first if first.fixed is not None else first.at_most(most)

    def dense_weights(self, w: Array) -> Array:
        """[M, C/groups, kH, kW] as [M to fours, kH, kW, depth * 4]: zeros outside the group."""
        filters, per_in = w.shape[0], w.shape[1]
        per_out = filters // self.groups
        packed = np.zeros((self.out_slices * LANES, *self.kernel, self.depth * LANES), np.float32)
        ohwi = w.transpose(0, 2, 3, 1)
        for m in range(filters):
            start = m // per_out * per_in - self.first_slice(m // LANES) * LANES
            packed[m, :, :, start : start + per_in] = ohwi[m]
        return packed


def tile_cost(shape: Shape, tile: Sequence[int], images: int, depthwise: bool) -> float:
    """Cycles of a core with 128 lanes: multiply-adds and reads, waste at the border counted."""
    pixels, channels = tile
    slices = channels // LANES
    threads = images * shape.out[0] * -(-shape.out[1] // pixels) * -(-shape.out_slices // slices)
    taps = math.prod(shape.kernel)
    columns = len(columns_of(shape, pixels))
    if depthwise:
        fmas = taps * LANES * pixels
        reads = shape.kernel[0] * columns + taps * 0.25
    else:
        fmas = taps * shape.depth * LANES * channels * pixels
        reads = shape.depth * (shape.kernel[0] * columns + taps * channels * 0.25)
    registers = 2 * pixels * (LANES if depthwise else channels)
    return occupied((fmas + 4 * reads + 30) * threads / 128, threads, registers)


def occupied(cycles: float, threads: int, registers: int) -> float:
    """Cycles, more where too few threads or too many registers leave a GPU idle.

    4096 threads keep the smallest GPU busy. Registers are of 16 bits; FULL_REGISTERS of them for a
    thread do not limit how many run, twice as many leave enough to hide most of the latency.
    """
    few = max(1.0, math.sqrt(4096 / threads))
    return cycles * few * max(1.0, math.sqrt(registers / (2 * FULL_REGISTERS)))


def columns_of(shape: Shape, pixels: int) -> list[int]:
    """Columns of the input, from that of the first pixel's first tap on, that a tile reads."""
    return sorted(
        {
            p * shape.stride[1] + k * shape.dilation[1]
            for p in range(pixels)
            for k in range(shape.kernel[1])
        }
    )


def tiles(shape: Shape, channels: Sequence[int]) -> list[tuple[int, int]]:
    """Candidates: pixels of a row by channels."""
    found = []
    for pixels in (1, 2, 4):
        if pixels > 1 and pixels > shape.out[1]:
            continue
        found += [
            (pixels, count)
            for count in channels
            if count == LANES or (shape.out_slices > 1 and shape.groups == 1)
        ]
    return found


def _signed(value: float) -> str:
    """A summand."""
    return f"{'-' if value < 0 else '+'} {abs(value)}f"


def reads(
    shape: Shape, x: Image, column: Index, ky: Index, layer: Index, pixels: int, sums: str
) -> list[str]:
    """Statements that read the columns of one input row that a tile of pixels needs: x0, x1, ..."""
    lines = []
    row = Index("position.y", shape.out[0]) * shape.stride[0] + ky * shape.dilation[0]
    left = column * shape.stride[1]
    over = shape.out[1] % pixels != 0
    if shape.padded:
        lines.append(f"const float row = float({row}) {_signed(0.5 - shape.pads[0])};")
        lines.append(f"const float left = float({left}) {_signed(0.5 - shape.pads[1])};")
    for col in columns_of(shape, pixels):
        if shape.padded:
            at = f"left + {float(col)}f" if col else "left"
            text = f"x.sample(zeros, float2({at}, row), {layer})"
        else:
            place = left + col
            clipped = over and (place.count > shape.size[1] or col > 0)
            spot = f"min({place}, {x.width - 1}u)" if clipped else str(place)
            pixel = f"uint2({spot}, {row})"
            if (spot, str(row)) == ("position.x", "position.y"):
                pixel = "position.xy"
            text = f"x.read({pixel}, {layer})"
        lines.append(f"const {sums} x{col} = {as_vector(sums, f'{x.element}4', text)};")
    return lines
