"""Gather along one axis, by indices known at compile time or at run time."""

from __future__ import annotations

import math

import numpy as np

from mdlc.codegen.code import Function, offset
from mdlc.codegen.gemm.strides import nest
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Kernel, Schedule, Step
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.gather import Gather
from mdlc.compiler.types import Array, Layout


class GatherKernel(Kernel):
    """Copies of contiguous pieces; run-time indices outside the axis are clamped."""

    name = "gather"
    layer = "Gather"

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        return isinstance(node.op, Gather) and all(
            source.type.layout is Layout.PLAIN for source in (node, *node.inputs)
        )

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        return node.type.size * 2.0

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        assert isinstance(node.op, Gather)
        packed: dict[str, Array] = {}
        data, indices = (source.constant for source in node.inputs)
        if data is not None:
            packed["table"] = data
        if indices is not None:
            length = node.inputs[0].shape[node.op.axis]
            packed["indices"] = np.where(indices < 0, indices + length, indices).astype(np.int32)
        return packed

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, op = step.node, step.node.op
        assert isinstance(op, Gather)
        data, indices = node.inputs
        shape = data.shape
        outer, length = math.prod(shape[: op.axis]), shape[op.axis]
        inner, count = math.prod(shape[op.axis + 1 :]), indices.type.size
        if indices.constant is not None:
            lookup = "const std::int64_t at = indices[i1];"
        else:
            lookup = f"""std::int64_t at = indices[i1];
at += at < 0 ? {length} : 0;
at = at < 0 ? 0 : (at >= {length} ? {length - 1} : at);"""
        if count == 1:
            lookup = lookup.replace("[i1]", "[0]")
        to = offset("y", (outer, "i0", count * inner), (count, "i1", inner))
        source = offset("table", (outer, "i0", length * inner)).plus("at", inner)
        copy = f"std::memcpy({to}, {source}, {inner * node.type.dtype.size});"
        name = f"gather_{'x'.join(map(str, shape))}_axis{op.axis}_{count}_{node.type.dtype.value}"
        runtime = (("table", data), ("indices", indices))
        return step.function(
            name,
            nest([outer, count], lookup, copy),
            comment=[op.words],
            inputs=[word for word, source in runtime if source.constant is None],
            includes=("cstdint", "cstring"),
        )


KERNELS = (GatherKernel(),)
