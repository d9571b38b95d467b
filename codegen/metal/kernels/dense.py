"""Layers of one output pixel: a group of threads shares the products of four channels out.

A classifier's last layer has few outputs and long sums; a thread for each output would leave most
of a GPU idle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mdlc.codegen.code import LayerCode
from mdlc.codegen.kernel import Schedule, Step
from mdlc.codegen.metal.backend import Metal
from mdlc.codegen.metal.image import LANES, Image
from mdlc.codegen.metal.index import Index
from mdlc.codegen.metal.kernel import ComputeCode, Work, declaration, image_of
from mdlc.codegen.metal.kernels.convolution import ConvolutionKernel
from mdlc.codegen.metal.kernels.reduce import GROUP, group_arguments, tree
from mdlc.codegen.metal.parts import epilogue, suffix, vector_type
from mdlc.codegen.metal.window import Shape
from mdlc.compiler.ir import Node


class DenseKernel(ConvolutionKernel):
    """Weights as for other convolutions: output channel, row, column, input channel."""

    name = "dense"
    layer = "Dense"

    def matches(self, node: Node, metal: Metal) -> bool:
        if not super().matches(node, metal):
            return False
        shape = Shape.of(node)
        return (
            shape.out == (1, 1)
            and Image.of(node.type).images == 1
            and shape.groups == 1
            and not shape.padded
            and not getattr(node.op, "residual", False)
            and self._products(shape) >= GROUP
        )

    @staticmethod
    def _products(shape: Shape) -> int:
        """Products of half4s in each sum."""
        return shape.depth * math.prod(shape.kernel)

    def schedules(self, node: Node, metal: Metal) -> Sequence[Schedule]:
        return [Schedule("group", (GROUP, LANES))]

    def cost(self, node: Node, schedule: Schedule, metal: Metal) -> float:
        shape = Shape.of(node)
        threads = shape.out_slices * GROUP
        cycles = (-(-self._products(shape) // GROUP) * 36 + 120) * threads / 128
        return cycles * max(1.0, math.sqrt(4096 / threads))

    def emit(self, step: Step, metal: Metal) -> LayerCode:
        node = step.node
        shape = Shape.of(node)
        x, y = image_of(step.inputs[0]), image_of(step.output)
        count = self._products(shape)
        (kh, kw), depth = shape.kernel, shape.depth
        i = Index("i", count)
        column = (i // depth) % kw * shape.dilation[1]
        row = i // (depth * kw) * shape.dilation[0]
        weight_type = vector_type(step.weights["weights"])
        slice_ = Index("group.x", y.slices)
        lines = [
            f"device const {weight_type}* w = {(slice_ * (LANES * count)).behind('weights')};",
            "float4 sum = float4(0.0f);",
            f"for (uint i = lane; i < {count}; i += {GROUP}) {{",
            f"const float4 value = float4(x.read(uint2({column}, {row}), {i % depth + x.first}));",
        ]
        dots = ", ".join(f"dot(float4(w[{Index.of(o * count) + i}]), value)" for o in range(LANES))
        lines += [f"sum += float4({dots});", "}", *tree("{a} + {b}", "shared", "sum")]
        bias = f"float4(bias[{slice_}])"
        lines += ["if (lane == 0) {", f"float4 sum0 = shared[0] + {bias};"]
        buffers = [
            (f"device const {weight_type}", "weights"),
            (f"device const {vector_type(step.weights['bias'])}", "bias"),
        ]
        if "slope" in step.weights:
            buffers.append((f"device const {vector_type(step.weights['slope'])}", "slopes"))
            lines.append(f"const float4 slope = float4(slopes[{slice_}]);")
        after, value = epilogue(node, step, "0", "", "float4")
        lines += [*after, f"y.write({y.element}4({value}), uint2(0, 0), {slice_ + y.first});", "}"]
        name = f"dense_{kh}x{kw}x{shape.inputs}_to_{shape.outputs}{suffix(node)}"
        head = declaration(
            [(x.element, "read", "x"), (y.element, "write", "y")],
            buffers,
            extra=group_arguments(lines),
            position=False,
        )
        comment = (
            f"y[o] = {self._formula(node)}: {GROUP} threads for 4 channels, sums in float.\n"
            f"Weights: output channel, row, column, input channel: "
            f"{shape.out_slices * LANES}x{kh}x{kw}x{depth * LANES}."
        )
        body = "\n".join(lines)
        return ComputeCode(
            name,
            comment,
            head,
            body,
            grid=(y.slices * GROUP, 1, 1),
            group=(GROUP, 1, 1),
            shared_bytes=GROUP * 16,
            work=Work(0, node.op.cost([s.type for s in node.inputs], node.type).macs),
        )


KERNELS = (DenseKernel(),)
