"""3x3 convolutions by Winograd's F(2, 3): a thread computes 2 x 2 pixels of four channels.

A tile of 4 x 4 texels is transformed in registers (sums and differences only), multiplied point
by point with transformed filters, and the 16 sums are transformed back: 16 products a channel
instead of 36. Tiles of more pixels would need more registers than a thread has.

Weights are G g G' of each filter (tiles/winograd_transform.py), by slice of output channels,
slice of input channels, point, output channel, a half4 holding four input channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mdlc.codegen.code import LayerCode
from mdlc.codegen.kernel import Schedule, Step
from mdlc.codegen.metal.backend import Metal
from mdlc.codegen.metal.image import LANES, Image
from mdlc.codegen.metal.index import Index
from mdlc.codegen.metal.kernel import (
    ZEROS,
    ComputeCode,
    Work,
    declaration,
    group_for,
    guard,
    image_of,
)
from mdlc.codegen.metal.kernels.convolution import ConvolutionKernel
from mdlc.codegen.metal.parts import (
    as_vector,
    constant,
    epilogue,
    padded,
    stored_filters,
    suffix,
    vector_type,
    vectors,
)
from mdlc.codegen.metal.window import Shape, occupied
from mdlc.codegen.tiles.winograd_transform import Matrix, transform
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.types import Array

F = transform(2, 3)
# 16-bit registers: 16 sums and as many transformed texels in float, and what is read.
REGISTERS = 2 * LANES * F.size**2 + LANES * F.size**2 + 32


def combine(matrix: Matrix, names: Sequence[str]) -> list[str]:
    """Each row of a matrix of 0, 1 and -1 as a sum of names."""
    rows = []
    for row in matrix:
        terms = [(c, n) for c, n in zip(row, names, strict=True) if c]
        assert all(abs(c) == 1 for c, _ in terms)
        terms.sort(key=lambda term: -term[0])  # begin with one that is added
        text = terms[0][1] if terms[0][0] > 0 else f"-{terms[0][1]}"
        rows.append(text + "".join(f" {'+' if c > 0 else '-'} {n}" for c, n in terms[1:]))
    return rows


class WinogradKernel(ConvolutionKernel):
    """Dense 3x3 convolutions of stride 1."""

    name = "winograd"

    def matches(self, node: Node, metal: Metal) -> bool:
        op = node.op
        if not isinstance(op, Conv2D) or not super().matches(node, metal) or op.groups != 1:
            return False
        square = node.inputs[1].shape[2:] == (F.taps, F.taps)
        return square and (op.stride, op.dilation) == ((1, 1), (1, 1)) and min(node.shape[2:]) > 1

    def schedules(self, node: Node, metal: Metal) -> Sequence[Schedule]:
        return [Schedule("winograd", (F.outputs, F.outputs, LANES))]

    def cost(self, node: Node, schedule: Schedule, metal: Metal) -> float:
        shape = Shape.of(node)
        rows, columns = (-(-n // F.outputs) for n in shape.out)
        threads = Image.of(node.type).images * rows * columns * shape.out_slices
        points = F.size**2
        fmas = shape.depth * (points * LANES * LANES + 2 * points * LANES) + 24 * LANES
        reads = shape.depth * (points + points * LANES * 0.25)
        return occupied((fmas + 4 * reads + 30) * threads / 128, threads, REGISTERS)

    def pack(self, node: Node, schedule: Schedule, metal: Metal) -> dict[str, Array]:
        filters = F.filters(padded(padded(constant(node, 1), 0), 1))  # [4, 4, M, C]
        outputs, inputs = filters.shape[2:]
        points = filters.reshape(-1, outputs // LANES, LANES, inputs // LANES, LANES)
        packed_ = points.transpose(1, 3, 0, 2, 4)
        packed = {
            "weights": np.ascontiguousarray(stored_filters(packed_, metal)),
            "bias": vectors(constant(node, 2)),
        }
        if getattr(node.op, "has_slope", False):
            packed["slope"] = vectors(constant(node, 3))
        return packed

    def emit(self, step: Step, metal: Metal) -> LayerCode:
        node = step.node
        shape = Shape.of(node)
        x, y = image_of(step.inputs[0]), image_of(step.output)
        size, points = F.size, F.size**2
        grid = (-(-y.width // F.outputs), -(-y.height // F.outputs), y.layers)
        weight_type = vector_type(step.weights["weights"])
        residual = bool(getattr(node.op, "residual", False))
        textures = [(x.element, "sample", "x")]
        textures += [(image_of(step.inputs[-1]).element, "read", "residual")] if residual else []
        textures.append((y.element, "write", "y"))
        buffers = [
            (f"device const {weight_type}", "weights"),
            (f"device const {vector_type(step.weights['bias'])}", "bias"),
        ]
        if "slope" in step.weights:
            buffers.append((f"device const {vector_type(step.weights['slope'])}", "slopes"))
        at = Index("position.z", y.layers)
        image, slice_ = at // y.slices, at % y.slices
        weights = slice_ * (shape.depth * points * LANES)
        lines = [
            f"const uint2 corner = position.xy * {F.outputs}u;",
            f"const float2 start = float2(corner) + float2({0.5 - shape.pads[1]}f, "
            f"{0.5 - shape.pads[0]}f);",
            f"device const {weight_type}* w = {weights.behind('weights')};",
        ]
        lines += [f"float4 m{p} = float4(0.0f);" for p in range(points)]
        depth = Index("i", shape.depth)
        loop = shape.depth > 1
        lines.append(f"for (uint i = 0; i < {shape.depth}; ++i) {{" if loop else "{")
        layer = x.layer(image, depth)
        for r in range(size):
            for c in range(size):
                spot = f"start + float2({c}.0f, {r}.0f)" if r or c else "start"
                lines.append(f"const float4 d{r}{c} = float4(x.sample(zeros, {spot}, {layer}));")
        for c in range(size):  # B' d
            column = combine(F.input, [f"d{r}{c}" for r in range(size)])
            lines += [f"const float4 e{r}{c} = {text};" for r, text in enumerate(column)]
        if loop:
            lines.append(f"device const {weight_type}* v = w + i * {points * LANES};")
        else:
            lines.append(f"device const {weight_type}* v = w;")
        for r in range(size):  # times B, and the products
            for c, text in enumerate(combine(F.input, [f"e{r}{k}" for k in range(size)])):
                p = r * size + c
                dots = ", ".join(
                    f"dot({as_vector('float4', weight_type, f'v[{p * LANES + o}]')}, t)"
                    for o in range(LANES)
                )
                lines += ["{", f"const float4 t = {text};", f"m{p} += float4({dots});", "}"]
        lines.append("}")
        for c in range(size):  # A' m
            column = combine(F.output, [f"m{r * size + c}" for r in range(size)])
            lines += [f"const float4 n{r}{c} = {text};" for r, text in enumerate(column)]
        bias = as_vector("float4", vector_type(step.weights["bias"]), f"bias[{slice_}]")
        lines.append(f"const float4 start_value = {bias};")
        if "slope" in step.weights:
            slope = as_vector("float4", vector_type(step.weights["slope"]), f"slopes[{slice_}]")
            lines.append(f"const float4 slope = {slope};")
        for r in range(F.outputs):  # times A
            for c, text in enumerate(combine(F.output, [f"n{r}{k}" for k in range(size)])):
                lines += self._pixel(step, r, c, f"start_value + {text}", image, slice_, y)
        name = f"winograd3x3_{shape.size[0]}x{shape.size[1]}x{shape.inputs}_to_{shape.outputs}"
        name += suffix(node)
        threads = grid[0] * grid[1] * grid[2]
        fmas = threads * shape.depth * points * LANES * (LANES + 2)
        head = declaration(textures, buffers)
        comment = (
            f"y[o] = {self._formula(node)}, by Winograd's F(2, 3): 2 x 2 pixels of 4 channels a "
            f"thread.\nWeights: {shape.out_slices} slices out, {shape.depth} in, {points} "
            f"points, 4 channels out, 4 in."
        )
        body = guard(grid) + "\n".join(lines)
        return ComputeCode(
            name,
            comment,
            head,
            body,
            grid=grid,
            group=group_for(grid),
            helpers=(ZEROS,),
            work=Work(0, fmas, REGISTERS),
        )

    @staticmethod
    def _pixel(
        step: Step, r: int, c: int, value: str, image: Index, slice_: Index, y: Image
    ) -> list[str]:
        """Statements that finish and write one pixel of the tile."""
        spot = f"corner + uint2({c}u, {r}u)" if r or c else "corner"
        read = ""
        if getattr(step.node.op, "residual", False):
            read = f"residual.read({spot}, {image_of(step.inputs[-1]).layer(image, slice_)})"
        lines = [f"float4 sum = {value};"]
        after, result = epilogue(step.node, step, "", read, "float4")
        lines += [*after, f"y.write({y.element}4({result}), {spot}, {y.layer(image, slice_)});"]
        tests = []
        if c and y.width % F.outputs:
            tests.append(f"corner.x + {c} < {y.width}")
        if r and y.height % F.outputs:
            tests.append(f"corner.y + {r} < {y.height}")
        head = f"if ({' && '.join(tests)}) {{" if tests else "{"
        return [head, *lines, "}"]


KERNELS = (WinogradKernel(),)
