"""Transposed convolution: a thread computes one block of stride x stride pixels.

Which taps reach a pixel depends only on its place in the block, so every tap is a literal: the
sums of a block read a small neighbourhood of the input, outside of which there are zeros.
"""

from __future__ import annotations

from mdlc.codegen.code import LayerCode
from mdlc.codegen.kernel import Schedule, Step
from mdlc.codegen.metal.backend import Metal
from mdlc.codegen.metal.image import LANES
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
    place,
    stored,
)
from mdlc.codegen.metal.parts import (
    constant,
    epilogue,
    stored_filters,
    suffix,
    vector_type,
    vectors,
)
from mdlc.codegen.metal.window import Shape
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.conv_transpose2d import ConvTranspose2D
from mdlc.compiler.types import Array, DType


def taps(kernel: int, stride: int, dilation: int, before: int) -> list[list[tuple[int, int]]]:
    """For every place in a block, the taps that reach it: (tap, input position - block number)."""
    found = []
    for at in range(stride):
        reach = [
            (k, (at + before - k * dilation) // stride)
            for k in range(kernel)
            if (at + before - k * dilation) % stride == 0
        ]
        found.append(reach)
    return found


class ConvTransposeKernel(ComputeKernel):
    """Blocks of pixels by four channels."""

    name = "conv_transpose"
    layer = "Deconvolution"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, metal: Metal) -> bool:
        if not isinstance(node.op, ConvTranspose2D) or not stored(node):
            return False
        floats = node.type.dtype in (DType.F32, DType.F16)
        return floats and all(source.constant is not None for source in node.inputs[1:])

    def _shape(self, node: Node) -> Shape:
        op = node.op
        assert isinstance(op, ConvTranspose2D)
        w, x = node.inputs[1].shape, node.inputs[0].shape
        return Shape(
            (w[2], w[3]), op.stride, op.pads, op.dilation, op.groups, x[1], node.shape[1],
            (x[2], x[3]), (node.shape[2], node.shape[3]),
        )  # fmt: skip

    def cost(self, node: Node, schedule: Schedule, metal: Metal) -> float:
        return node.op.cost([s.type for s in node.inputs], node.type).macs / 128

    def pack(self, node: Node, schedule: Schedule, metal: Metal) -> dict[str, Array]:
        op = node.op
        assert isinstance(op, ConvTranspose2D)
        w = constant(node, 1)
        channels, per_out = w.shape[:2]
        per_in = channels // op.groups
        # [C, M/groups, kH, kW] to [M, C/groups, kH, kW]
        grouped = w.reshape(op.groups, per_in, per_out, *w.shape[2:]).transpose(0, 2, 1, 3, 4)
        weights = self._shape(node).dense_weights(grouped.reshape(-1, per_in, *w.shape[2:]))
        packed = {"weights": stored_filters(weights, metal), "bias": vectors(constant(node, 2))}
        if op.has_slope:
            packed["slope"] = vectors(constant(node, 3))
        return packed

    def emit(self, step: Step, metal: Metal) -> LayerCode:
        node, op = step.node, step.node.op
        assert isinstance(op, ConvTranspose2D)
        shape = self._shape(node)
        x, y = image_of(step.inputs[0]), image_of(step.output)
        (sh, sw), (kh, kw) = op.stride, shape.kernel
        grid = (-(-y.width // sw), -(-y.height // sh), y.layers)
        image, slice_ = place(y)
        weight_type = vector_type(step.weights["weights"])
        buffers = [
            (f"device const {weight_type}", "weights"),
            (f"device const {vector_type(step.weights['bias'])}", "bias"),
        ]
        rows = taps(kh, sh, op.dilation[0], op.pads[0])
        columns = taps(kw, sw, op.dilation[1], op.pads[1])
        lines = [
            f"float4 sum{r}{s} = float4(bias[{slice_}]);" for r in range(sh) for s in range(sw)
        ]
        row = shape.depth * kh * kw
        lines.append(
            f"device const {weight_type}* w = {(slice_ * (LANES * row)).behind('weights')};"
        )
        base = shape.first_text(slice_)
        if base.fixed is None:
            lines.append(f"const uint start = {base};")
            base = Index("start", base.count)
        inner = Index("i", shape.depth)
        loop = shape.depth > 1
        if loop:
            lines.append(f"for (uint i = 0; i < {shape.depth}; ++i) {{")
        layer = x.layer(image, base + inner)
        names: dict[tuple[int, int], str] = {}
        for dy in sorted({d for reach in rows for _, d in reach}):
            for dx in sorted({d for reach in columns for _, d in reach}):
                names[dy, dx] = f"x{len(names)}"
                at = f"float2(position.xy) + float2({dx + 0.5}f, {dy + 0.5}f)"
                lines.append(
                    f"const float4 {names[dy, dx]} = float4(x.sample(zeros, {at}, {layer}));"
                )
        for r, row_taps in enumerate(rows):
            for s, column_taps in enumerate(columns):
                for ky, dy in row_taps:
                    for kx, dx in column_taps:
                        place_ = Index.of((ky * kw + kx) * shape.depth) + inner
                        weights = [f"w[{Index.of(o * row) + place_}]" for o in range(LANES)]
                        dots = ", ".join(f"dot(float4({w}), {names[dy, dx]})" for w in weights)
                        lines.append(f"sum{r}{s} += float4({dots});")
        if loop:
            lines.append("}")
        if "slope" in step.weights:
            buffers.append((f"device const {vector_type(step.weights['slope'])}", "slopes"))
            lines.append(f"const float4 slope = float4(slopes[{slice_}]);")
        lines.append(f"const uint2 corner = position.xy * uint2({sw}, {sh});")
        for r in range(sh):
            for s in range(sw):
                after, value = epilogue(node, step, f"{r}{s}", "", "float4")
                spot = f"corner + uint2({s}, {r})" if r or s else "corner"
                after.append(f"y.write({y.element}4({value}), {spot}, {y.layer(image, slice_)});")
                tests = []
                if s and s >= (y.width % sw or sw):
                    tests.append(f"corner.x + {s} < {y.width}")
                if r and r >= (y.height % sh or sh):
                    tests.append(f"corner.y + {r} < {y.height}")
                if tests:
                    after = [f"if ({' && '.join(tests)}) {{", *after, "}"]
                lines += after
        textures = [(x.element, "sample", "x"), (y.element, "write", "y")]
        size = f"{x.height}x{x.width}x{x.channels}_to_{y.height}x{y.width}x{y.channels}"
        name = f"deconv{kh}x{kw}_s{max(op.stride)}_{size}{suffix(node)}"
        head = declaration(textures, buffers)
        comment = (
            f"{op.words}\n"
            f"A block of {sh}x{sw} pixels by 4 channels a thread. Weights: output "
            f"channel, row, column, input channel."
        )
        body = guard(grid) + "\n".join(lines)
        fmas = node.op.cost([s.type for s in node.inputs], node.type).macs
        work = Work(0, fmas, 8 * (sh * sw + len(names)) + 24)
        return ComputeCode(
            name, comment, head, body, grid=grid, group=group_for(grid), helpers=(ZEROS,), work=work
        )


KERNELS = (ConvTransposeKernel(),)
