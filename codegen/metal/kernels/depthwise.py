"""Depthwise convolution: one filter for each channel.

Weights are in the order row, column, channel, and in float: a filter's error is that of every
pixel of its channel (see parts.vectors).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mdlc.codegen.code import LayerCode
from mdlc.codegen.kernel import Schedule, Step
from mdlc.codegen.metal.backend import Metal
from mdlc.codegen.metal.image import Image
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
)
from mdlc.codegen.metal.kernels.convolution import ConvolutionKernel
from mdlc.codegen.metal.parts import (
    as_vector,
    constant,
    epilogue,
    padded,
    suffix,
    vector_type,
    vectors,
)
from mdlc.codegen.metal.window import Shape, columns_of, reads, tile_cost, tiles
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.types import Array


class DepthwiseKernel(ComputeKernel):
    """One filter for each channel."""

    name = "depthwise"
    layer = "ConvolutionDepthWise"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, metal: Metal) -> bool:
        op = node.op
        if not isinstance(op, Conv2D) or not ConvolutionKernel().matches(node, metal):
            return False
        return op.groups == node.inputs[0].shape[1] == node.shape[1] and op.groups > 1

    def schedules(self, node: Node, metal: Metal) -> Sequence[Schedule]:
        return [Schedule("depthwise", tile) for tile in tiles(Shape.of(node), (4,))]

    def cost(self, node: Node, schedule: Schedule, metal: Metal) -> float:
        return tile_cost(Shape.of(node), schedule.tile, Image.of(node.type).images, True)

    def pack(self, node: Node, schedule: Schedule, metal: Metal) -> dict[str, Array]:
        w = padded(constant(node, 1)[:, 0].transpose(1, 2, 0), 2)
        packed = {
            "weights": w.astype(np.float32),
            "bias": vectors(constant(node, 2)),
        }
        if getattr(node.op, "has_slope", False):
            packed["slope"] = vectors(constant(node, 3))
        return packed

    def emit(self, step: Step, metal: Metal) -> LayerCode:
        node = step.node
        shape = Shape.of(node)
        x, y = image_of(step.inputs[0]), image_of(step.output)
        pixels = step.schedule.tile[0]
        kh, kw = shape.kernel
        weight_type = vector_type(step.weights["weights"])
        sums = "float4"
        grid = (-(-y.width // pixels), y.height, y.layers)
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
        at = Index("position.z", y.layers)
        image, slice_ = at // y.slices, at % y.slices
        column = Index("position.x", grid[0]) * pixels
        lines = []
        if pixels > 1:
            lines.append(f"const uint column = {column};")
            column = Index("column", y.width)
        bias = as_vector(sums, vector_type(step.weights["bias"]), f"bias[{slice_}]")
        lines.append(f"{sums} sum0 = {bias};")
        lines += [f"{sums} sum{p} = sum0;" for p in range(1, pixels)]
        ky = Index("ky", kh)
        if kh > 1:
            lines.append(f"for (uint ky = 0; ky < {kh}; ++ky) {{")
        lines += reads(shape, x, column, ky, x.layer(image, slice_), pixels, sums)
        for k in range(kw):
            place = ky * (kw * y.slices) + k * y.slices + slice_
            lines.append(
                f"const {sums} w{k} = {as_vector(sums, weight_type, f'weights[{place}]')};"
            )
        for p in range(pixels):
            for k in range(kw):
                col = p * shape.stride[1] + k * shape.dilation[1]
                lines.append(f"sum{p} = fma(w{k}, x{col}, sum{p});")
        if kh > 1:
            lines.append("}")
        if "slope" in step.weights:
            slope = as_vector(sums, vector_type(step.weights["slope"]), f"slopes[{slice_}]")
            lines.append(f"const {sums} slope = {slope};")
        for p in range(pixels):
            own = column + p
            spot = f"uint2({own}, position.y)" if pixels > 1 else "position.xy"
            read = ""
            if residual:
                read = f"residual.read({spot}, {image_of(step.inputs[-1]).layer(image, slice_)})"
            after, value = epilogue(node, step, str(p), read, sums)
            value = as_vector(f"{y.element}4", sums, value)
            after.append(f"y.write({value}, {spot}, {y.layer(image, slice_)});")
            if p and y.width % pixels and p >= y.width % pixels:
                after = [f"if ({own} < {y.width}) {{", *after, "}"]
            lines += after
        stride = "" if shape.stride == (1, 1) else f"_s{max(shape.stride)}"
        size = f"{shape.size[0]}x{shape.size[1]}x{shape.inputs}"
        name = f"depthwise{kh}x{kw}{stride}_{size}{suffix(node)}"
        fmas = node.op.cost([s.type for s in node.inputs], node.type).macs
        registers = 8 * (pixels + len(columns_of(shape, pixels)) + kw) + 16
        work = Work(0, fmas, registers)
        head = declaration(textures, buffers)
        comment = (
            f"y[c] = bias[c] + sum of weights[ky][kx][c] * x[ky][kx][c]: {pixels} x 4 pixels by "
            f"channels a thread, sums in {sums[:-1]}."
        )
        body = guard(grid) + "\n".join(lines)
        return ComputeCode(
            name,
            comment,
            head,
            body,
            grid=grid,
            group=group_for(grid),
            helpers=(ZEROS,) if shape.padded else (),
            work=work,
        )


KERNELS = (DepthwiseKernel(),)
