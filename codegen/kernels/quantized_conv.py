"""Convolutions and dense layers of 8-bit integers as implicit GEMM, inputs read where they lie."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mdlc.codegen.code import C_TYPES, Function, Loop, Microkernel, body, offset
from mdlc.codegen.gemm.loops_int8 import (
    READS_PAST,
    byte_product,
    check_sums,
    copy_cycles,
    dot_cycles,
    emit_product,
    for_bytes,
    needs_border,
    output_stage,
    pack_rescaling,
    pack_weights,
    padded_size,
    product_cycles,
    run_length,
    tile_schedules,
    without_gaps,
)
from mdlc.codegen.gemm.product_loops import panel_elements, thread_panels
from mdlc.codegen.gemm.shape import ChannelBlock, Product
from mdlc.codegen.isa.base import KernelIsa, int8_of
from mdlc.codegen.kernel import Kernel, Schedule, Step
from mdlc.codegen.tiles.gemm_int8 import DotTile, PanelDotTile
from mdlc.codegen.tiles.padding_int8 import ByteBorder
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.quantized_conv2d import QuantizedConv2D
from mdlc.compiler.ops.quantized_dense import QuantizedDense
from mdlc.compiler.types import Array, DType


class QuantizedConv(Kernel):
    """Dot products of groups of bytes, in tiles of pixels by channels."""

    name = "quantized_conv"
    layer = "QuantizedConvolution"
    pitched_input = True
    pitched_output = True
    reads_past = READS_PAST

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        if not isinstance(node.op, QuantizedConv2D | QuantizedDense):
            return False
        return all(source.constant is not None for source in node.inputs[1 : node.op.operands])

    def in_place(self, node: Node) -> Sequence[int]:
        # What is added is read where the sum is written, and no further.
        if not isinstance(node.op, QuantizedConv2D) or node.op.addition is None:
            return []
        other = node.inputs[5]
        return [5] if other.type == node.type and other is not node.inputs[0] else []

    def schedules(self, node: Node, isa: KernelIsa) -> Sequence[Schedule]:
        product = self._product(node, isa)
        return tile_schedules(product, for_bytes(isa), self._in_panels(node, product, isa))

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        int8, byte_isa = int8_of(isa), for_bytes(isa)
        stage = int8.requantize_instructions / (isa.core.issue_width if isa.int8 else 2.0)
        product = self._scheduled(node, schedule, isa)
        step = dot_cycles(byte_isa, panels=schedule.panels)
        found = product_cycles(
            product, schedule, byte_isa, step, int8.group, stage, copy_cycles(byte_isa)
        )
        copied = self._border(node, node.inputs[0].shape[-1], isa) is not None
        return found + (node.inputs[0].type.size / 16 if copied else 0.0)

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        check_sums(node)
        product = self._scheduled(node, schedule, isa)
        weights = node.inputs[1].constant
        assert weights is not None
        if weights.ndim == 4:  # the depth runs over kH, kW, C as the input does
            weights = weights.transpose(0, 2, 3, 1)
        matrix = weights.reshape(product.groups, product.channels, -1).transpose(0, 2, 1)
        run = self._run(node, isa)
        if schedule.panels and (order := self._order(node, isa)):
            zero = np.zeros((*matrix.shape[:1], 1, matrix.shape[2]), matrix.dtype)
            matrix, run = np.concatenate([matrix, zero], axis=1)[:, order], len(order)
        groups = int8_of(isa).split(product.run)
        return {
            "weights": pack_weights(matrix, product, run, schedule, for_bytes(isa), groups),
            "scale": pack_rescaling(node, product, isa),
        }

    def scratch(self, node: Node, schedule: Schedule, isa: KernelIsa) -> int:
        return self._bordered(node, isa) + _with_rest(
            panel_elements(self._scheduled(node, schedule, isa), schedule, for_bytes(isa))
        )

    def thread_scratch(self, node: Node, schedule: Schedule, isa: KernelIsa) -> int:
        return _with_rest(
            thread_panels(self._scheduled(node, schedule, isa), schedule, for_bytes(isa))
        )

    def _bordered(self, node: Node, isa: KernelIsa) -> int:
        """Bytes of the copy with a border."""
        border = self._border(node, self._pitch(node), isa)
        return _with_rest(border.elements * border.target.size) if border else 0

    @staticmethod
    def _pitch(node: Node) -> int:
        """Elements from pixel to pixel (row to row of a dense layer) of a dense input."""
        return node.inputs[0].shape[1 if len(node.inputs[0].shape) == 4 else -1]

    @staticmethod
    def _copies(node: Node, isa: KernelIsa) -> bool:
        """Whether the input is copied: for its border, to be widened, or to be made dense.

        The last unless a filter row is packed alike as one run and as one for each pixel: how
        weights are packed must not depend on where the input lies.
        """
        op, int8 = node.op, int8_of(isa)
        if needs_border(node) or int8.copies(node.inputs[0].type.dtype):
            return True
        taps = node.inputs[1].shape[-1]
        if not isinstance(op, QuantizedConv2D) or taps == 1 or op.groups > 1:
            return False
        channels, unit = node.inputs[0].shape[1], int8.unit
        if channels % unit:
            return True
        return int8.split(taps * channels) != int8.split(channels) * taps

    def _product(
        self,
        node: Node,
        isa: KernelIsa,
        x_pitch: int | None = None,
        y_pitch: int | None = None,
        other_pitch: int = 0,
    ) -> Product:
        outputs = node.shape[1 if isinstance(node.op, QuantizedConv2D) else -1]
        return byte_product(
            node,
            unit=int8_of(isa).unit,
            x_pitch=x_pitch or self._pitch(node),
            y_pitch=y_pitch or outputs,
            pad=self._copies(node, isa),
            other_pitch=other_pitch,
        )

    def _run(self, node: Node, isa: KernelIsa) -> int:
        """Contiguous bytes of the depth before they are rounded up."""
        return run_length(node, self._pitch(node), pad=self._copies(node, isa))

    def _in_panels(self, node: Node, product: Product, isa: KernelIsa) -> Product | None:
        """The product as panels hold it, where that is another: without gaps."""
        if not self._copies(node, isa):  # where weights go would depend on where the input lies
            return None
        return without_gaps(product, self._run(node, isa), int8_of(isa))

    def _scheduled(self, node: Node, schedule: Schedule, isa: KernelIsa) -> Product:
        """The product of a dense input as a schedule holds it."""
        product = self._product(node, isa)
        return (schedule.panels and self._in_panels(node, product, isa)) or product

    def _order(self, node: Node, isa: KernelIsa) -> list[int]:
        """The depth as panels without gaps hold it, -1 being padding; [] if there are none."""
        product, loop = self._product(node, isa), int8_of(isa).depth_loop
        if self._in_panels(node, product, isa) is None or loop is None or loop.panels is None:
            return []
        return loop.panels.gathered(self._run(node, isa), product.taps[0][0])

    def _border(self, node: Node, pitch: int, isa: KernelIsa) -> ByteBorder | None:
        if not self._copies(node, isa):
            return None
        op, x = node.op, node.inputs[0]
        int8 = int8_of(isa)
        source = x.type.dtype
        target = int8.element if int8.copies(source) and int8.element else source
        flip = int8 if int8.copies(source) and not int8.widens else None
        if isinstance(op, QuantizedDense):
            depth = x.shape[-1]
            size = (x.type.size // depth, 1)
            return ByteBorder(size, depth, pitch, (0, 0), size, 0, source, target, flip)
        assert isinstance(op, QuantizedConv2D)
        _, channels, height, width = x.shape
        return ByteBorder(
            (height, width),
            channels,
            pitch,
            (op.pads[0], op.pads[1]),
            padded_size(node),
            op.x_zero if flip is None else op.x_zero ^ (-128 if target is DType.I8 else 128) & 255,
            source,
            target,
            flip,
        )

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, x, y = step.node, step.inputs[0], step.output
        int8 = int8_of(isa)
        stage = output_stage(node, int8)
        added = stage.addition
        product = self._product(node, isa, x.pitch, y.pitch, step.inputs[1].pitch if added else 0)
        border = self._border(node, x.pitch, isa)

        loop, panels = int8.depth_loop, step.schedule.panels
        flips = int8.flips(stage.source) and not int8.copies(stage.source)
        taps, pixel, run = product.taps, product.x.pixel, self._run(node, isa)
        gathered = self._in_panels(node, product, isa) if panels else None
        product = gathered or product

        def copy(rows: int) -> Microkernel:
            assert loop is not None
            assert loop.panels is not None
            if gathered:
                return loop.panels.gather(rows, run, taps[0][0], pixel, stage.source, flips)
            return loop.panels.copy(rows, product.run, len(taps), stage.source, flips)

        def tile(rows: int, block: ChannelBlock) -> DotTile | PanelDotTile:
            if panels:
                return PanelDotTile(rows, block.vectors, block.part, product.depth, stage)
            return DotTile(rows, block.vectors, block.part, len(product.taps), product.run, stage)

        loops = emit_product(
            product,
            step.schedule,
            for_bytes(isa),
            stage,
            tile,
            "padded" if border else "x",
            len(int8.used_fields(stage)),
            copy if panels else None,
            taps[0][1] if gathered else 0,
        )
        scratch = []
        if border:
            kind = C_TYPES[border.target]
            scratch.append(f"{kind}* padded = reinterpret_cast<{kind}*>(scratch);")
        if panels:
            before = self._bordered(node, isa)
            start = f"reinterpret_cast<std::int8_t*>(scratch){f' + {before}' if before else ''}"
            scratch.append(f"std::int8_t* panels = {start};")
        images = product.images if isinstance(node.op, QuantizedConv2D) else 1
        image = offset("x", (images, "image", x.rows // images * x.pitch))
        return step.function(
            function_name(node),
            scratch,
            Loop("image", images, body(border.code(image) if border else (), loops)),
            comment=[f"{step.schedule}, depth in multiples of {int8.unit}."],
            inputs=("x", "other")[: len(step.inputs)],
            scratch=bool(scratch),
            includes=("algorithm",) if border else (),
        )


def _with_rest(nbytes: int) -> int:
    """Bytes of a copy that a product may read past, in whole cache lines."""
    return (nbytes + READS_PAST + 63) // 64 * 64 if nbytes else 0


def function_name(node: Node) -> str:
    """A layer's geometry as a C++ name, such as qconv3x3s2_224x224x3_to_32."""
    op = node.op
    if isinstance(op, QuantizedDense):
        rows = int(np.prod(node.shape[:-1]))
        batch = f"_x{rows}" if rows > 1 else ""
        return f"qdense_{node.inputs[1].shape[1]}_to_{node.shape[-1]}{batch}"
    assert isinstance(op, QuantizedConv2D)
    _, channels, height, width = node.inputs[0].shape
    filters, _, kh, kw = node.inputs[1].shape
    (sh, sw), (dh, dw) = op.stride, op.dilation
    stem = f"qconv{kh}x{kw}"
    if (sh, sw) != (1, 1):
        stem += f"s{sh}" if sh == sw else f"s{sh}x{sw}"
    if (dh, dw) != (1, 1):
        stem += f"d{dh}" if dh == dw else f"d{dh}x{dw}"
    stem += f"g{op.groups}" if op.groups > 1 else ""
    stem += f"_{height}x{width}x{channels}_to_{filters}"
    return f"{stem}_added" if op.addition else stem


KERNELS = (QuantizedConv(),)
