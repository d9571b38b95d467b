"""A depthwise convolution and the pointwise one that reads it, in one kernel.

A thread computes one pixel of several output slices: slice by slice of the depthwise layer's
channels it makes that layer's value in registers and multiplies it with the pointwise filters, so
that what lies between the two layers never reaches memory. Threads that share a pixel compute its
depthwise values again; there are few of them where the pointwise layer has few outputs, as in the
bottlenecks of MobileNet. Source of the fusion: the direct form of depthwise separable layers,
Howard et al., "MobileNets", arXiv 1704.04861, section 3.1.
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
    Work,
    declaration,
    group_for,
    guard,
    image_of,
)
from mdlc.codegen.metal.kernels.convolution import ConvolutionKernel
from mdlc.codegen.metal.kernels.depthwise import DepthwiseKernel
from mdlc.codegen.metal.parts import activation_of, as_vector, epilogue, suffix, vector_type
from mdlc.codegen.metal.window import Shape, occupied, reads
from mdlc.codegen.tiles.formula import stem
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.types import Array

MAX_SLICES = 8


class SeparableKernel(ConvolutionKernel):
    """Pointwise convolutions of stride 1 that read a depthwise one."""

    name = "separable"
    layer = "ConvolutionSeparable"

    def matches(self, node: Node, metal: Metal) -> bool:
        op = node.op
        if not isinstance(op, Conv2D) or not super().matches(node, metal):
            return False
        shape = Shape.of(node)
        pointwise = shape.kernel == (1, 1) == shape.stride and shape.groups == 1
        inner = node.inputs[0]
        if not pointwise or shape.padded or op.has_slope or not isinstance(inner.op, Conv2D):
            return False
        plain = not inner.op.has_slope and not inner.op.residual
        return plain and DepthwiseKernel().matches(inner, metal)

    def absorbs(self, node: Node) -> Node | None:
        return node.inputs[0]

    def schedules(self, node: Node, metal: Metal) -> Sequence[Schedule]:
        """Output slices of a thread: divisors of their number."""
        slices = Shape.of(node).out_slices
        found = [n for n in range(1, MAX_SLICES + 1) if slices % n == 0]
        return [Schedule("fused", (1, n * LANES)) for n in found[-3:]]

    def cost(self, node: Node, schedule: Schedule, metal: Metal) -> float:
        """Both layers: compare with the sum of their costs, and what passes between them."""
        shape, inner = Shape.of(node), Shape.of(node.inputs[0])
        slices = schedule.tile[1] // LANES
        threads = Image.of(node.type).images * math.prod(shape.out) * shape.out_slices // slices
        taps = math.prod(inner.kernel)
        fmas = shape.depth * (taps * LANES + slices * LANES * LANES)
        reads_ = shape.depth * (taps * 1.5 + slices * LANES * 0.25)
        registers = 2 * LANES * slices + 64
        return occupied((fmas + 4 * reads_ + 30) * threads / 128, threads, registers)

    def pack(self, node: Node, schedule: Schedule, metal: Metal) -> dict[str, Array]:
        inner = DepthwiseKernel().pack(node.inputs[0], schedule, metal)
        return {
            "filters": inner["weights"],
            "filter_bias": inner["bias"],
            **super().pack(node, schedule, metal),
        }

    def emit(self, step: Step, metal: Metal) -> LayerCode:
        node, inner = step.node, step.node.inputs[0]
        shape, window = Shape.of(node), Shape.of(inner)
        x, y = image_of(step.inputs[0]), image_of(step.output)
        slices = step.schedule.tile[1] // LANES
        per_image = y.slices // slices
        grid = (y.width, y.height, y.images * per_image)
        residual = bool(getattr(node.op, "residual", False))
        textures = [(x.element, "sample" if window.padded else "read", "x")]
        textures += [(image_of(step.inputs[-1]).element, "read", "residual")] if residual else []
        textures.append((y.element, "write", "y"))
        types = {name: vector_type(array) for name, array in step.weights.items()}
        buffers = [(f"device const {kind}", name) for name, kind in types.items()]
        at = Index("position.z", y.images * per_image)
        image, first = at // per_image, at % per_image * slices
        depth, (kh, kw) = shape.depth, window.kernel
        lines = []
        if first.fixed is None:
            lines.append(f"const uint slice = {first};")
            first = Index("slice", y.slices)
        lines += [
            f"float4 sum{s} = {as_vector('float4', types['bias'], f'bias[{first + s}]')};"
            for s in range(slices)
        ]
        place = first * (LANES * depth)
        start = place.behind("weights")
        lines.append(f"device const {types['weights']}* w = {start};")
        i = Index("i", depth)
        lines.append(f"for (uint i = 0; i < {depth}; ++i) {{")
        lines.append(
            f"float4 sum_inner = {as_vector('float4', types['filter_bias'], 'filter_bias[i]')};"
        )
        ky = Index("ky", kh)
        lines.append(f"for (uint ky = 0; ky < {kh}; ++ky) {{" if kh > 1 else "{")
        column = Index("position.x", y.width)
        lines += reads(window, x, column, ky, x.layer(image, i), 1, "float4")
        for k in range(kw):
            place = ky * (kw * depth) + k * depth + i
            value = as_vector("float4", types["filters"], f"filters[{place}]")
            lines.append(f"sum_inner = fma({value}, x{k * window.dilation[1]}, sum_inner);")
        lines.append("}")
        after, inside = epilogue(inner, step, "_inner", "", "float4")
        lines += after
        for s in range(slices):
            weights = [
                as_vector("float4", types["weights"], f"w[{i + (s * LANES + o) * depth}]")
                for o in range(LANES)
            ]
            dots = ", ".join(f"dot({weight}, {inside})" for weight in weights)
            lines.append(f"sum{s} += float4({dots});")
        lines.append("}")
        for s in range(slices):
            read = ""
            if residual:
                own = image_of(step.inputs[-1])
                read = f"residual.read(position.xy, {own.layer(image, first + s)})"
            after, value = epilogue(node, step, str(s), read, "float4")
            lines += [
                *after,
                f"y.write({y.element}4({value}), position.xy, {y.layer(image, first + s)});",
            ]
        stride = "" if window.stride == (1, 1) else f"_s{max(window.stride)}"
        name = (
            f"separable{kh}x{kw}{stride}_{window.size[0]}x{window.size[1]}x{window.inputs}_to_"
            f"{shape.outputs}{suffix(inner)}{suffix(node)}"
        )
        activation = activation_of(inner)
        after_inner = stem(activation) if activation else ""
        threads = math.prod(grid)
        fmas = threads * depth * LANES * (kh * kw + slices * LANES)
        head = declaration(textures, buffers)
        comment = (
            f"y[o] = {self._formula(node)}, where x[i] is a {kh}x{kw} filter of channel i"
            f"{f', then {after_inner}' if after_inner else ''}:\n"
            f"1 x {slices * LANES} pixels by channels a thread, sums in float.\n"
            f"Filters: row, column, channel. Weights: output channel, input channel: "
            f"{shape.out_slices * LANES}x{depth * LANES}."
        )
        body = guard(grid) + "\n".join(lines)
        return ComputeCode(
            name,
            comment,
            head,
            body,
            grid=grid,
            group=group_for(grid),
            helpers=(ZEROS,) if window.padded else (),
            work=Work(0, fmas, 2 * LANES * slices + 64),
        )


KERNELS = (SeparableKernel(),)
