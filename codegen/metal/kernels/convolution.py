"""Convolutions: every thread computes a few pixels of a row by four or eight channels.

Weights are in the order output channel, row, column, input channel (OHWI), input channels padded
with zeros to fours, so that a half4 holds four input channels of one output channel. Depthwise
layers have theirs as row, column, channel.

Grouped convolutions read the slices that hold their groups' channels; weights of channels outside
the group are zeros.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdlc.codegen.formula import stem
from mdlc.codegen.isa import Isa
from mdlc.codegen.kernel import LayerCode, Schedule, Step
from mdlc.codegen.metal import msl
from mdlc.codegen.metal.bounds import largest_magnitude
from mdlc.codegen.metal.image import LANES, Image
from mdlc.codegen.metal.index import Index
from mdlc.codegen.metal.kernel import (
    ZEROS,
    ComputeCode,
    ComputeKernel,
    Work,
    declaration,
    group_for,
    guard,
    image_of,
    stored,
)
from mdlc.compiler.ir import Node
from mdlc.compiler.op import Elementwise
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.dense import Dense
from mdlc.compiler.types import Array, DType

# Depthwise sums of so few products are kept in half precision. Everything else is summed in float:
# on networks of fifty layers half sums cost half as much again as what storing activations and
# weights in half costs anyway.
MOST_HALF_TERMS = 9
HALF_MAX = 65504.0


def padded(values: Array, axis: int) -> Array:
    """Zeros appended along an axis up to a multiple of four."""
    widths = [(0, 0)] * values.ndim
    widths[axis] = (0, -values.shape[axis] % LANES)
    return np.pad(values, widths)


def vectors(values: Array) -> Array:
    """Per-channel constants as half, or as float where half would overflow or lose them."""
    flat = padded(values.reshape(-1), 0)
    magnitude = np.abs(flat[flat != 0])
    narrow = not magnitude.size or (magnitude.max() < HALF_MAX and magnitude.min() > 6e-5)
    return flat.astype(np.float16 if narrow else np.float32)


def vector_type(array: Array) -> str:
    """The kernel's type of packed per-channel constants."""
    return "half4" if array.dtype == np.float16 else "float4"


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
        if first.fixed is not None or first.count - 1 <= most:
            return first
        return Index(f"min({first}, {most}u)", most + 1)

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


def activation_of(node: Node) -> Elementwise | None:
    """The fused activation."""
    return getattr(node.op, "activation", None)


def constant(node: Node, index: int) -> Array:
    """The value of a constant input."""
    value = node.inputs[index].constant
    assert value is not None
    return value


def epilogue(node: Node, step: Step, number: str, at: str, sums: str) -> tuple[list[str], str]:
    """What follows the sums: residual, activation; the result is of the sums' type.

    Args:
        number: ending of the names of this pixel.
        at: how the residual is read.
        sums: half4 or float4.
    """
    lines, value = [], f"sum{number}"
    if getattr(node.op, "residual", False):
        lines.append(f"{value} += {_as(sums, 'half4', at)};")
    activation = activation_of(node)
    if activation is not None:
        operands = [value] + (["slope"] if activation.arity == 2 else [])
        spelled = msl.spell(msl.formula(activation), sums, operands)
        # Names of parts belong to one pixel.
        lines.append("{")
        lines += spelled.statements
        lines.append(f"{value} = {spelled.result};")
        lines.append("}")
        if not spelled.statements:
            lines[-3:] = [lines[-2]]
    return lines, value


def _as(wanted: str, kind: str, text: str) -> str:
    return text if wanted == kind else f"{wanted}({text})"


def suffix(node: Node) -> str:
    """The ending of a kernel's name: what is fused."""
    parts = ["add"] if getattr(node.op, "residual", False) else []
    activation = activation_of(node)
    parts += [stem(activation)] if activation else []
    return "".join(f"_{part}" for part in parts)


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
    cycles = (fmas + 4 * reads + 30) * threads / 128
    # Few threads leave most of a GPU idle: 4096 keep the smallest one busy.
    return cycles * max(1.0, math.sqrt(4096 / threads))


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


class ConvolutionKernel(ComputeKernel):
    """Dense, grouped, dilated, strided and pointwise convolutions, and Dense layers."""

    name = "convolution"
    layer = "Convolution"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, isa: Isa) -> bool:
        op = node.op
        if not isinstance(op, Conv2D | Dense) or not stored(node):
            return False
        constants = node.inputs[1 : 3 + op.has_slope]
        return node.type.dtype in (DType.F32, DType.F16) and all(
            source.constant is not None for source in constants
        )

    def schedules(self, node: Node, isa: Isa) -> Sequence[Schedule]:
        return [Schedule("direct", tile) for tile in tiles(Shape.of(node), (4, 8))]

    def cost(self, node: Node, schedule: Schedule, isa: Isa) -> float:
        return tile_cost(Shape.of(node), schedule.tile, Image.of(node.type).images, False)

    def pack(self, node: Node, schedule: Schedule, isa: Isa) -> dict[str, Array]:
        shape = Shape.of(node)
        w = constant(node, 1)
        if isinstance(node.op, Dense):  # columns are rows, columns, channels
            w = w.reshape(len(w), *shape.kernel, shape.inputs).transpose(0, 3, 1, 2)
        weights = shape.dense_weights(w)
        narrow = np.abs(weights).max(initial=0.0) < HALF_MAX
        packed = {
            "weights": weights.astype(np.float16 if narrow else np.float32),
            "bias": vectors(constant(node, 2)),
        }
        if getattr(node.op, "has_slope", False):
            packed["slope"] = vectors(constant(node, 3))
        return packed

    def emit(self, step: Step, isa: Isa) -> LayerCode:
        node = step.node
        shape = Shape.of(node)
        x, y = image_of(step.inputs[0]), image_of(step.output)
        pixels, channels = step.schedule.tile
        slices = channels // LANES
        sums = "float4"
        weight_type = vector_type(step.weights["weights"])
        names = {
            "x": "sample" if shape.padded else "read",
        }
        grid = (
            -(-y.width // pixels),
            y.height,
            y.images * -(-y.slices // slices),
        )
        residual = bool(getattr(node.op, "residual", False))
        textures = [("half", names["x"], "x")]
        textures += [("half", "read", "residual")] if residual else []
        textures.append(("half", "write", "y"))
        buffers = [
            (f"device const {weight_type}", "weights"),
            (f"device const {vector_type(step.weights['bias'])}", "bias"),
        ]
        if "slope" in step.weights:
            buffers.append((f"device const {vector_type(step.weights['slope'])}", "slopes"))
        kh, kw = shape.kernel
        size = f"{shape.size[0]}x{shape.size[1]}x{shape.inputs}_to_{shape.outputs}"
        kind = "dense" if isinstance(node.op, Dense) else f"conv{kh}x{kw}"
        if shape.groups > 1:
            kind = f"grouped{shape.groups}_{kind}"
        stride = "" if shape.stride == (1, 1) else f"_s{max(shape.stride)}"
        name = f"{kind}{stride}_{size}{suffix(node)}"
        body = self._body(step, shape, x, y, pixels, slices, sums, weight_type)
        fmas = node.op.cost([s.type for s in node.inputs], node.type).macs
        half = sums == "half4"
        work = Work(
            fmas if half else 0,
            0 if half else fmas,
            registers=pixels * channels * (1 if half else 2) + 8 * pixels + 16 * slices + 16,
        )
        text = (
            f"// y[o] = {self._formula(node)}: {pixels} pixels by {channels} channels a thread, "
            f"sums in {sums[:-1]}.\n// Weights: output channel, row, column, input channel: "
            f"{shape.out_slices * LANES}x{kh}x{kw}x{shape.depth * LANES}.\n"
            f"{declaration(name, textures, buffers)} {{\n{guard(grid)}{body}}}\n"
        )
        return ComputeCode(
            name,
            text,
            grid=grid,
            group=group_for(grid),
            helpers=(ZEROS,) if shape.padded else (),
            work=work,
        )

    @staticmethod
    def _formula(node: Node) -> str:
        inner = "bias[o] + sum of weights[o][i] * x[i]"
        if getattr(node.op, "residual", False):
            inner += " + residual[o]"
        activation = activation_of(node)
        return f"{stem(activation)}({inner})" if activation else inner

    def _body(
        self,
        step: Step,
        shape: Shape,
        x: Image,
        y: Image,
        pixels: int,
        slices: int,
        sums: str,
        weight_type: str,
    ) -> str:
        node = step.node
        scalar = sums[:-1]
        per_image = -(-y.slices // slices)
        at = Index("position.z", y.images * per_image)
        image, tile = at // per_image, at % per_image
        first = tile * slices
        taps = math.prod(shape.kernel)
        kh, kw = shape.kernel
        column = Index("position.x", -(-y.width // pixels)) * pixels
        lines = []
        if pixels > 1:
            lines.append(f"const uint column = {column};")
            column = Index("column", y.width)
        if slices > 1 or y.images > 1:
            lines.append(f"const uint slice = {first};")
            first = Index("slice", y.slices)
        for s in range(slices):
            which = (first + s).text if not s or y.slices % slices == 0 else self._last(first, y)
            value = f"bias[{which}]"
            bias = _as(sums, vector_type(step.weights["bias"]), value)
            lines.append(f"{sums} sum{self._name(s, 0, slices)} = {bias};")
            lines += [
                f"{sums} sum{self._name(s, p, slices)} = sum{self._name(s, 0, slices)};"
                for p in range(1, pixels)
            ]
        row = shape.depth * taps
        offset = first * (LANES * row)
        lines.append(f"device const {weight_type}* w = weights + {offset};")
        loop, ends = [], []
        if kh > 1:
            loop.append(f"for (uint ky = 0; ky < {kh}; ++ky) {{")
            ends.append("}")
        ky = Index("ky", kh)
        base = shape.first_text(first)
        if base.fixed is None:
            lines.append(f"const uint start = {base};")
            base = Index("start", base.count)
        inner = Index("i", shape.depth)
        if shape.depth > 1:
            loop.append(f"for (uint i = 0; i < {shape.depth}; ++i) {{")
            ends.append("}")
        source = x.layer(image, base + inner)
        loop += self._reads(shape, x, column, ky, source, pixels, sums)
        for k in range(kw):
            tap = ky * (kw * shape.depth) + k * shape.depth + inner
            for s in range(slices):
                for o in range(LANES):
                    place = Index.of((s * LANES + o) * row) + tap
                    if s and y.slices % slices:
                        # Behind the last slice there are no weights: those of the slice before.
                        place = Index(f"{o * row} + further", row * LANES * 2) + tap
                    value = _as(sums, weight_type, f"w[{place}]")
                    loop.append(f"const {sums} w{self._weight(k, s, o, kw, slices)} = {value};")
                for p in range(pixels):
                    col = p * shape.stride[1] + k * shape.dilation[1]
                    dots = ", ".join(
                        f"dot(w{self._weight(k, s, o, kw, slices)}, x{col})" for o in range(LANES)
                    )
                    loop.append(f"sum{self._name(s, p, slices)} += {sums}({dots});")
        if slices > 1 and y.slices % slices:
            lines.append(f"const uint further = slice + 1 < {y.slices} ? {LANES * row} : 0;")
        lines += [*loop, *ends]
        del scalar
        for s in range(slices):
            part = []
            where = y.layer(image, first + s)
            if "slope" in step.weights:
                slope = f"slopes[{first + s}]"
                slope = _as(sums, vector_type(step.weights["slope"]), slope)
                lead = f"const {sums} slope = {slope};"
                part.append(lead)
            for p in range(pixels):
                number = self._name(s, p, slices)
                own = column + p
                spot = f"uint2({own}, position.y)" if pixels > 1 else "position.xy"
                read = ""
                if getattr(node.op, "residual", False):
                    r = image_of(step.inputs[-1])
                    read = f"residual.read({spot}, {r.layer(image, first + s)})"
                after, value = epilogue(node, step, number, read, sums)
                after.append(f"y.write({_as('half4', sums, value)}, {spot}, {where});")
                if p and y.width % pixels and p >= y.width % pixels:
                    after = [f"if ({own} < {y.width}) {{", *after, "}"]
                part += after
            if s and y.slices % slices:
                part = [f"if ({first + s} < {y.slices}) {{", *part, "}"]
            elif slices > 1 and "slope" in step.weights:
                part = ["{", *part, "}"]
            lines += part
        return "\n".join(lines) + "\n"

    @staticmethod
    def _last(first: Index, y: Image) -> str:
        return f"min({first + 1}, {y.slices - 1}u)"

    @staticmethod
    def _name(s: int, p: int, slices: int) -> str:
        return f"{'ab'[s] if slices > 1 else ''}{p}"

    @staticmethod
    def _weight(k: int, s: int, o: int, kw: int, slices: int) -> str:
        part = f"{'ab'[s] if slices > 1 else ''}{o}"
        return f"{k}_{part}" if kw > 1 else part

    @staticmethod
    def _reads(
        shape: Shape, x: Image, column: Index, ky: Index, layer: Index, pixels: int, sums: str
    ) -> list[str]:
        return reads(shape, x, column, ky, layer, pixels, sums)


def reads(
    shape: Shape, x: Image, column: Index, ky: Index, layer: Index, pixels: int, sums: str
) -> list[str]:
    """Statements that read the columns of one input row that a tile of pixels needs: x0, x1, ..."""
    lines = []
    row = Index("position.y", shape.out[0]) * shape.stride[0] + ky * shape.dilation[0]
    left = column * shape.stride[1]
    over = shape.out[1] % pixels != 0
    if shape.padded:
        lines.append(f"const float row = float({row}) + {0.5 - shape.pads[0]}f;")
        lines.append(f"const float left = float({left}) + {0.5 - shape.pads[1]}f;")
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
        lines.append(f"const {sums} x{col} = {_as(sums, 'half4', text)};")
    return lines


class DepthwiseKernel(ComputeKernel):
    """One filter for each channel."""

    name = "depthwise"
    layer = "ConvolutionDepthWise"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, isa: Isa) -> bool:
        op = node.op
        if not isinstance(op, Conv2D) or not ConvolutionKernel().matches(node, isa):
            return False
        return op.groups == node.inputs[0].shape[1] == node.shape[1] and op.groups > 1

    def schedules(self, node: Node, isa: Isa) -> Sequence[Schedule]:
        return [Schedule("depthwise", tile) for tile in tiles(Shape.of(node), (4,))]

    def cost(self, node: Node, schedule: Schedule, isa: Isa) -> float:
        return tile_cost(Shape.of(node), schedule.tile, Image.of(node.type).images, True)

    def pack(self, node: Node, schedule: Schedule, isa: Isa) -> dict[str, Array]:
        w = padded(constant(node, 1)[:, 0].transpose(1, 2, 0), 2)
        narrow = np.abs(w).max(initial=0.0) < HALF_MAX
        packed = {
            "weights": w.astype(np.float16 if narrow else np.float32),
            "bias": vectors(constant(node, 2)),
        }
        if getattr(node.op, "has_slope", False):
            packed["slope"] = vectors(constant(node, 3))
        return packed

    def emit(self, step: Step, isa: Isa) -> LayerCode:
        node = step.node
        shape = Shape.of(node)
        x, y = image_of(step.inputs[0]), image_of(step.output)
        pixels = step.schedule.tile[0]
        kh, kw = shape.kernel
        weight_type = vector_type(step.weights["weights"])
        sums = "half4" if kh * kw <= MOST_HALF_TERMS and _stays_half(node) else "float4"
        grid = (-(-y.width // pixels), y.height, y.layers)
        residual = bool(getattr(node.op, "residual", False))
        textures = [("half", "sample" if shape.padded else "read", "x")]
        textures += [("half", "read", "residual")] if residual else []
        textures.append(("half", "write", "y"))
        buffers = [
            (f"device const {weight_type}", "weights"),
            (f"device const {vector_type(step.weights['bias'])}", "bias"),
        ]
        if "slope" in step.weights:
            buffers.append((f"device const {vector_type(step.weights['slope'])}", "slopes"))
        at = Index("position.z", y.layers)
        image, slice_ = at // y.slices, at % y.slices
        column = Index("position.x", grid[0]) * pixels
        lines = []
        if pixels > 1:
            lines.append(f"const uint column = {column};")
            column = Index("column", y.width)
        bias = _as(sums, vector_type(step.weights["bias"]), f"bias[{slice_}]")
        lines.append(f"{sums} sum0 = {bias};")
        lines += [f"{sums} sum{p} = sum0;" for p in range(1, pixels)]
        ky = Index("ky", kh)
        if kh > 1:
            lines.append(f"for (uint ky = 0; ky < {kh}; ++ky) {{")
        lines += reads(shape, x, column, ky, x.layer(image, slice_), pixels, sums)
        for k in range(kw):
            place = ky * (kw * y.slices) + k * y.slices + slice_
            lines.append(f"const {sums} w{k} = {_as(sums, weight_type, f'weights[{place}]')};")
        for p in range(pixels):
            for k in range(kw):
                col = p * shape.stride[1] + k * shape.dilation[1]
                lines.append(f"sum{p} = fma(w{k}, x{col}, sum{p});")
        if kh > 1:
            lines.append("}")
        if "slope" in step.weights:
            slope = _as(sums, vector_type(step.weights["slope"]), f"slopes[{slice_}]")
            lines.append(f"const {sums} slope = {slope};")
        for p in range(pixels):
            own = column + p
            spot = f"uint2({own}, position.y)" if pixels > 1 else "position.xy"
            read = ""
            if residual:
                read = f"residual.read({spot}, {image_of(step.inputs[-1]).layer(image, slice_)})"
            after, value = epilogue(node, step, str(p), read, sums)
            after.append(f"y.write({_as('half4', sums, value)}, {spot}, {y.layer(image, slice_)});")
            if p and y.width % pixels and p >= y.width % pixels:
                after = [f"if ({own} < {y.width}) {{", *after, "}"]
            lines += after
        stride = "" if shape.stride == (1, 1) else f"_s{max(shape.stride)}"
        size = f"{shape.size[0]}x{shape.size[1]}x{shape.inputs}"
        name = f"depthwise{kh}x{kw}{stride}_{size}{suffix(node)}"
        fmas = node.op.cost([s.type for s in node.inputs], node.type).macs
        half = sums == "half4"
        registers = 4 * (pixels + len(columns_of(shape, pixels)) + kw) * (1 if half else 2) + 16
        work = Work(fmas if half else 0, 0 if half else fmas, registers)
        text = (
            f"// y[c] = bias[c] + sum of weights[ky][kx][c] * x[ky][kx][c]: {pixels} pixels by "
            f"4 channels a thread, sums in {sums[:-1]}.\n"
            f"{declaration(name, textures, buffers)} {{\n{guard(grid)}" + "\n".join(lines) + "\n}\n"
        )
        return ComputeCode(
            name,
            text,
            grid=grid,
            group=group_for(grid),
            helpers=(ZEROS,) if shape.padded else (),
            work=work,
        )


def _stays_half(node: Node) -> bool:
    """Whether sums may be kept in half: none can overflow, and the activation is exact enough."""
    activation = activation_of(node)
    if activation is not None and msl.precision(msl.formula(activation)) != "half4":
        return False
    weights = np.abs(constant(node, 1)).sum((1, 2, 3))
    largest = largest_magnitude(node.inputs[0]) * float(weights.max())
    return largest + float(np.abs(constant(node, 2)).max()) < HALF_MAX


KERNELS = (ConvolutionKernel(), DepthwiseKernel())
