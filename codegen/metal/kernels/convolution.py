"""Convolutions: every thread computes a few pixels of a row by four or eight channels.

Weights are in the order output channel, row, column, input channel (OHWI), input channels padded
with zeros to fours, so that a half4 holds four input channels of one output channel.

Grouped convolutions read the slices that hold their groups' channels; weights of channels outside
the group are zeros.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mdlc.codegen.code import LayerCode
from mdlc.codegen.kernel import Schedule, Step
from mdlc.codegen.metal.backend import Metal
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
from mdlc.codegen.metal.matrix import matrix_form
from mdlc.codegen.metal.parts import (
    activation_of,
    as_vector,
    constant,
    epilogue,
    stored_filters,
    suffix,
    vector_type,
    vectors,
)
from mdlc.codegen.metal.window import Shape, reads, tile_cost, tiles
from mdlc.codegen.tiles.formula import stem
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.dense import Dense
from mdlc.compiler.types import Array, DType


class ConvolutionKernel(ComputeKernel):
    """Dense, grouped, dilated, strided and pointwise convolutions, and Dense layers."""

    name = "convolution"
    layer = "Convolution"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, metal: Metal) -> bool:
        op = node.op
        if not isinstance(op, Conv2D | Dense) or not stored(node):
            return False
        if isinstance(op, Conv2D) and op.shift:  # bytes are floats in textures, and shifted there
            return False
        constants = node.inputs[1 : 3 + op.has_slope]
        return node.type.dtype in (DType.F32, DType.F16) and all(
            source.constant is not None for source in constants
        )

    def schedules(self, node: Node, metal: Metal) -> Sequence[Schedule]:
        return [Schedule("direct", tile) for tile in tiles(Shape.of(node), (4, 8))]

    def cost(self, node: Node, schedule: Schedule, metal: Metal) -> float:
        return tile_cost(Shape.of(node), schedule.tile, Image.of(node.type).images, False)

    def pack(self, node: Node, schedule: Schedule, metal: Metal) -> dict[str, Array]:
        shape = Shape.of(node)
        w = constant(node, 1)
        if isinstance(node.op, Dense):  # columns are rows, columns, channels
            w = w.reshape(len(w), *shape.kernel, shape.inputs).transpose(0, 3, 1, 2)
        weights = shape.dense_weights(w)
        packed = {
            "weights": stored_filters(weights, metal),
            "bias": vectors(constant(node, 2)),
        }
        if getattr(node.op, "has_slope", False):
            packed["slope"] = vectors(constant(node, 3))
        return packed

    def emit(self, step: Step, metal: Metal) -> LayerCode:
        node = step.node
        shape = Shape.of(node)
        x, y = image_of(step.inputs[0]), image_of(step.output)
        pixels, channels = step.schedule.tile
        slices = channels // LANES
        sums = "float4"  # half sums would add as much error as half storage; see docs/metal.md
        weight_type = vector_type(step.weights["weights"])
        grid = (
            -(-y.width // pixels),
            y.height,
            y.images * -(-y.slices // slices),
        )
        residual = bool(getattr(node.op, "residual", False))
        textures = [(x.element, "sample" if shape.padded else "read", "x")]
        textures += [(image_of(step.inputs[-1]).element, "read", "residual")] if residual else []
        textures.append((y.element, "write", "y"))
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
        body = guard(grid) + self._body(step, shape, x, y, pixels, slices, sums, weight_type)
        fmas = node.op.cost([s.type for s in node.inputs], node.type).macs
        work = Work(
            float_fmas=fmas,
            registers=2 * pixels * channels + 8 * pixels + 16 * slices + 16,
        )
        head = declaration(textures, buffers)
        comment = (
            f"y[o] = {self._formula(node)}: {pixels} x {channels} pixels by channels a thread, "
            f"sums in {sums[:-1]}.\nWeights: output channel, row, column, input channel: "
            f"{shape.out_slices * LANES}x{kh}x{kw}x{shape.depth * LANES}."
        )
        return ComputeCode(
            name,
            comment,
            head,
            body,
            grid=grid,
            group=group_for(grid),
            helpers=(ZEROS,) if shape.padded else (),
            work=work,
            matrix=matrix_form(step),
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
        if y.slices > 1 and (slices > 1 or y.images > 1):
            lines.append(f"const uint slice = {first};")
            first = Index("slice", y.slices)
        for s in range(slices):
            which = (first + s).text if not s or y.slices % slices == 0 else self._last(first, y)
            value = f"bias[{which}]"
            bias = as_vector(sums, vector_type(step.weights["bias"]), value)
            lines.append(f"{sums} sum{self._name(s, 0, slices)} = {bias};")
            lines += [
                f"{sums} sum{self._name(s, p, slices)} = sum{self._name(s, 0, slices)};"
                for p in range(1, pixels)
            ]
        row = shape.depth * taps
        offset = first * (LANES * row)
        lines.append(f"device const {weight_type}* w = {offset.behind('weights')};")
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
        loop += reads(shape, x, column, ky, source, pixels, sums)
        for k in range(kw):
            tap = ky * (kw * shape.depth) + k * shape.depth + inner
            for s in range(slices):
                for o in range(LANES):
                    place = Index.of((s * LANES + o) * row) + tap
                    if s and y.slices % slices:
                        # Behind the last slice there are no weights: those of the slice before.
                        place = Index(f"{o * row} + further", row * LANES * 2) + tap
                    value = as_vector(sums, weight_type, f"w[{place}]")
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
        for s in range(slices):
            part = []
            where = y.layer(image, first + s)
            if "slope" in step.weights:
                slope = f"slopes[{first + s}]"
                slope = as_vector(sums, vector_type(step.weights["slope"]), slope)
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
                after.append(
                    f"y.write({as_vector(f'{y.element}4', sums, value)}, {spot}, {where});"
                )
                if p and y.width % pixels and p >= y.width % pixels:
                    after = [f"if ({own} < {y.width}) {{", *after, "}"]
                part += after
            if s and y.slices % slices:
                part = [f"if ({first + s} < {y.slices}) {{", *part, "}"]
            elif slices > 1 and "slope" in step.weights:
                part = ["{", *part, "}"]
            lines += part
        return "\n".join(lines)

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


KERNELS = (ConvolutionKernel(),)
