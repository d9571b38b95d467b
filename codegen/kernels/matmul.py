"""MatMul of two run-time tensors: the right side is packed at run time, then as a convolution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mdlc.codegen.code import Call, Function, Loop, Statement, Variable, offset
from mdlc.codegen.gemm.loops import aligned, cycles, emit_loops, packed_length, schedules
from mdlc.codegen.gemm.product_loops import panel_elements, thread_panels
from mdlc.codegen.gemm.shape import Product, Steps, channel_blocks
from mdlc.codegen.gemm.strides import Dim, broadcast_strides, nest, pointer
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Kernel, Schedule, Step, View
from mdlc.codegen.tiles.epilogue import Epilogue
from mdlc.codegen.tiles.right_side import pack_rows
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.matmul import MatMul
from mdlc.compiler.types import Array, Layout


class MatMulKernel(Kernel):
    """Batched, with broadcasting over the batch."""

    name = "matmul"
    layer = "MatMul"

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        return (
            isinstance(node.op, MatMul)
            and node.type.dtype is isa.dtype
            and all(source.type.layout is Layout.PLAIN for source in (node, *node.inputs))
        )

    def _product(self, node: Node) -> Product:
        rows, depth = node.inputs[0].shape[-2:]
        columns = node.shape[-1]
        return Product(
            1, 1, rows, 1, columns, depth, (), Steps(0, 0, depth, 0), Steps(0, 0, columns, 0)
        )

    def schedules(self, node: Node, isa: KernelIsa) -> Sequence[Schedule]:
        return [
            Schedule("packed", s.tile, s.block if s.panels else (), panels=s.panels)
            for s in schedules(self._product(node), isa)
        ]

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        batch = math.prod(node.shape[:-2])
        product = self._product(node)
        return batch * (cycles(product, schedule, isa) + 2.0 * product.depth * product.channels)

    def scratch(self, node: Node, schedule: Schedule, isa: KernelIsa) -> int:
        copied = panel_elements(self._product(node), schedule, isa)
        return (self._packed(node, schedule, isa) + copied) * isa.bytes

    def thread_scratch(self, node: Node, schedule: Schedule, isa: KernelIsa) -> int:
        return thread_panels(self._product(node), schedule, isa) * isa.bytes

    def _packed(self, node: Node, schedule: Schedule, isa: KernelIsa) -> int:
        """Elements of the packed right side, up to a cache line where panels follow."""
        length = packed_length(self._product(node), schedule, isa)
        return aligned(length, isa) if schedule.panels else length

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        packed: dict[str, Array] = {}
        for name, source in zip("ab", node.inputs, strict=True):
            if source.constant is not None:
                packed[f"constant_{name}"] = source.constant
        packed["bias"] = np.zeros(-(-node.shape[-1] // isa.lanes) * isa.lanes, isa.dtype.numpy)
        return packed

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node = step.node
        product = self._product(node)
        depth = product.packed_depth(step.schedule, isa)
        loops = emit_loops(product, step.schedule, isa, Epilogue(), "a")
        rank = len(node.shape)
        views = iter(step.inputs)
        strides = []
        for source in node.inputs:
            view = View.of(source.type, 0) if source.constant is not None else next(views)
            strides.append(broadcast_strides(view, rank))
        own = broadcast_strides(step.output, rank)
        dims = [
            Dim(count, (strides[0][axis], strides[1][axis], own[axis]))
            for axis, count in enumerate(node.shape[:-2])
            if count > 1
        ]
        left, right = (
            f"constant_{letter}" if source.constant is not None else f"all_{letter}"
            for letter, source in zip("ab", node.inputs, strict=True)
        )
        lines: list[Statement] = [
            Variable(f"const {isa.element}*", "a", pointer(left, dims, 0)),
            Variable(f"const {isa.element}*", "b", pointer(right, dims, 1)),
            Variable(f"{isa.element}*", "y", pointer("all_y", dims, 2)),
        ]
        for block in channel_blocks(product, step.schedule, isa):
            width = block.vectors * isa.lanes
            used = width - (isa.lanes - block.part if block.part else 0)
            panel = offset("b", (block.count, "n", width), fixed=block.first)
            target = offset("weights", (block.count, "n", width * depth), fixed=block.offset)
            step_and_depth = (product.channels, product.depth)
            call = Call(pack_rows(isa), (panel, *step_and_depth, target), (used, width))
            inside: list[Statement] = [call]
            if depth > product.depth:  # panels pad the sums
                size = f"sizeof({isa.element}) * {(depth - product.depth) * width}"
                end = target + product.depth * width
                inside.append(Call("std::memset", (end, "0", size)))
            lines.append(Loop("n", block.count, tuple(inside)))
        shapes = "_by_".join("x".join(map(str, s.shape)) for s in node.inputs)
        width = step.schedule.tile[1]
        panels = []
        if step.schedule.panels:
            start = self._packed(node, step.schedule, isa)
            panels.append(f"{isa.element}* panels = weights + {start};")
        return step.function(
            f"matmul_{shapes}",
            f"{isa.element}* weights = reinterpret_cast<{isa.element}*>(scratch);",
            panels,
            nest([dim.count for dim in dims], lines, loops),
            comment=[f"{step.schedule}: b is packed into panels of {width} columns."],
            inputs=[
                f"all_{letter}"
                for letter, source in zip("ab", node.inputs, strict=True)
                if source.constant is None
            ],
            output="all_y",
            scratch=True,
        )


KERNELS = (MatMulKernel(),)
