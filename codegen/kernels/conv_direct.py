"""Direct convolution as implicit GEMM: packed weights, activations read in place, no im2col.

Covers every Conv2D, and Dense as a convolution over one row of pixels. A filter row is one
contiguous run of kW*C floats in NHWC, so the depth of the product is a short loop over filter
rows around a run. Padding is a copy of the input with a border, which makes floats of bytes, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mdlc.codegen.code import Body, Function, Loop, body, offset
from mdlc.codegen.gemm.loops import (
    aligned,
    cycles,
    emit_loops,
    pack_matrix,
    pack_per_channel,
    schedules,
)
from mdlc.codegen.gemm.product_loops import panel_elements, thread_panels
from mdlc.codegen.gemm.shape import Product, Steps
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Kernel, Schedule, Step
from mdlc.codegen.tiles.epilogue import Epilogue
from mdlc.codegen.tiles.padding import Border
from mdlc.codegen.tiles.uint8_input import Unpack
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.dense import Dense
from mdlc.compiler.types import Array


def conv_border(node: Node, pitch: int) -> Border | None:
    """The border that a Conv2D's input needs, or None; one of no width where it has bytes."""
    op = node.op
    assert isinstance(op, Conv2D)
    _, channels, height, width = node.inputs[0].shape
    window = op.window(node.inputs[1].shape[2:])
    reach = [
        (count - 1) * stride + extent
        for count, stride, extent in zip(node.shape[2:], op.stride, window.extent, strict=True)
    ]
    top, left = op.pads[:2]
    unpack = Unpack.of(node)
    if not top and not left and reach[0] <= height and reach[1] <= width and not unpack:
        return None
    return Border((height, width), channels, pitch, (top, left), (reach[0], reach[1]), unpack)


def conv_product(
    node: Node, x_pitch: int | None = None, y_pitch: int | None = None, residual_pitch: int = 0
) -> Product:
    """A Conv2D or Dense as a product; pitches are those of dense tensors unless given."""
    x, w = node.inputs[0], node.inputs[1]
    if isinstance(node.op, Dense):
        count, depth = math.prod(x.shape[:-1]), x.shape[-1]
        steps = Steps(0, 0, x_pitch or depth, 0), Steps(0, 0, y_pitch or w.shape[0], 0)
        return Product(1, 1, count, 1, w.shape[0], depth, (), *steps)
    op = node.op
    assert isinstance(op, Conv2D)
    images, channels, height, width = x.shape
    filters, per_group, kh, kw = w.shape
    rows, columns = node.shape[2:]
    pitch = x_pitch or channels
    border = conv_border(node, pitch)
    if border is not None:
        (height, width), pitch = border.padded, channels
    # A filter row is one run where its pixels' channels touch.
    joined = kw > 1 and op.dilation[1] == 1 and op.groups == 1 and pitch == channels
    taps = [(kh, op.dilation[0] * width * pitch)]
    if not joined:
        taps.append((kw, op.dilation[1] * pitch))

    def outward(step: int) -> Steps:
        return Steps(rows * columns * step, columns * step, step, filters // op.groups)

    return Product(
        images,
        rows,
        columns,
        op.groups,
        filters // op.groups,
        kw * channels if joined else per_group,
        tuple((count, step) for count, step in taps if count > 1),
        Steps(
            0 if border else height * width * pitch,
            op.stride[0] * width * pitch,
            op.stride[1] * pitch,
            per_group,
        ),
        outward(y_pitch or filters),
        outward(residual_pitch or filters) if op.residual else None,
    ).merged()


def epilogue_of(node: Node) -> Epilogue:
    """The epilogue of a Conv2D or Dense."""
    op = node.op
    assert isinstance(op, Conv2D | Dense)
    return Epilogue(op.activation, isinstance(op, Conv2D) and op.residual)


def convolution(
    step: Step, isa: KernelIsa, name: str, images: int, pad: Body, products: Body,
    panels: int | None = None,
) -> Function:  # fmt: skip
    """A layer's function: for every image a padded copy if need be, then the products.

    Args:
        pad: the statements that write the copy to `padded`.
        panels: elements of `padded` before the panels; None where there are none.
    """
    width, element = step.schedule.tile[1], isa.element
    scratch = []
    if pad:
        scratch.append(f"{element}* padded = reinterpret_cast<{element}*>(scratch);")
    if panels is not None:
        start = f"padded + {panels}" if panels else f"reinterpret_cast<{element}*>(scratch)"
        scratch.append(f"{element}* panels = {start};")
    return step.function(
        name,
        scratch,
        Loop("image", images, body(pad, products)),
        comment=[f"{step.schedule}: weights packed as [channels / {width}][depth][{width}]."],
        inputs=("x", "residual")[: len(step.inputs)],
        scratch=bool(scratch),
    )


class ConvDirect(Kernel):
    """Implicit GEMM on activations where they lie."""

    name = "conv_direct"
    layer = "Convolution"
    pitched_input = True
    pitched_output = True
    banded = True

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        if not isinstance(node.op, Conv2D | Dense) or node.type.dtype is not isa.dtype:
            return False
        return all(source.constant is not None for source in node.inputs[1:3])

    def schedules(self, node: Node, isa: KernelIsa) -> Sequence[Schedule]:
        return schedules(conv_product(node), isa)

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        copied = 0.0
        if isinstance(node.op, Conv2D) and conv_border(node, node.inputs[0].shape[1]):
            copied = node.inputs[0].type.size / isa.lanes * 2
        return cycles(conv_product(node), schedule, isa) + copied

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        product = conv_product(node)
        weights, bias = node.inputs[1].constant, node.inputs[2].constant
        assert weights is not None
        assert bias is not None
        if weights.ndim == 4:  # the depth runs over kH, kW, C as the input does
            weights = weights.transpose(0, 2, 3, 1)
        matrix = weights.reshape(product.groups, product.channels, product.depth)
        packed = {
            "weights": pack_matrix(matrix.transpose(0, 2, 1), product, schedule, isa),
            "bias": pack_per_channel(bias, product.groups, isa),
        }
        if epilogue_of(node).slope:
            slope = node.inputs[3].constant
            assert slope is not None
            packed["slope"] = pack_per_channel(slope, product.groups, isa)
        return packed

    def scratch(self, node: Node, schedule: Schedule, isa: KernelIsa) -> int:
        copied = panel_elements(conv_product(node), schedule, isa)
        return isa.bytes * (self._padded(node, isa) + copied)

    def thread_scratch(self, node: Node, schedule: Schedule, isa: KernelIsa) -> int:
        return isa.bytes * thread_panels(conv_product(node), schedule, isa)

    @staticmethod
    def _padded(node: Node, isa: KernelIsa) -> int:
        """Elements of the padded copy, up to a cache line."""
        border = None
        if isinstance(node.op, Conv2D):
            border = conv_border(node, node.inputs[0].shape[1])
        return aligned(border.elements, isa) if border else 0

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, x, y = step.node, step.inputs[0], step.output
        epilogue = epilogue_of(node)
        border = conv_border(node, x.pitch) if isinstance(node.op, Conv2D) else None
        product = conv_product(
            node, x.pitch, y.pitch, step.inputs[-1].pitch if epilogue.residual else 0
        )
        loops = emit_loops(product, step.schedule, isa, epilogue, "padded" if border else "x")
        image = offset("x", (product.images, "image", x.rows // product.images * x.pitch))
        return convolution(
            step,
            isa,
            self._function_name(step, epilogue),
            product.images,
            border.code(image, isa) if border else (),
            loops,
            panels=self._padded(node, isa) if step.schedule.panels else None,
        )

    @staticmethod
    def _function_name(step: Step, epilogue: Epilogue) -> str:
        node, op = step.node, step.node.op
        if isinstance(op, Dense):
            rows = math.prod(node.shape[:-1])
            batch = f"_x{rows}" if rows > 1 else ""
            return f"dense_{node.inputs[1].shape[1]}_to_{node.shape[-1]}{batch}{epilogue.suffix}"
        assert isinstance(op, Conv2D)
        return f"{conv_stem(node)}{epilogue.suffix}"


def conv_stem(node: Node) -> str:
    """The geometry of a convolution as a C++ name, such as conv3x3s2_224x224x3_to_32."""
    op = node.op
    assert isinstance(op, Conv2D)
    _, channels, height, width = node.inputs[0].shape
    filters, _, kh, kw = node.inputs[1].shape
    (sh, sw), (dh, dw) = op.stride, op.dilation
    stem = f"conv{kh}x{kw}"
    if (sh, sw) != (1, 1):
        stem += f"s{sh}" if sh == sw else f"s{sh}x{sw}"
    if (dh, dw) != (1, 1):
        stem += f"d{dh}" if dh == dw else f"d{dh}x{dw}"
    if op.groups > 1:
        stem += f"g{op.groups}"
    return f"{stem}_{height}x{width}x{channels}_to_{filters}"


KERNELS = (ConvDirect(),)
