"""Gather along one axis, by indices known at compile time or at run time."""

from __future__ import annotations

import math

import numpy as np

from mdlc.codegen.code import C_TYPES, LayerCode
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

    def emit(self, step: Step, isa: KernelIsa) -> LayerCode:
        node, op = step.node, step.node.op
        assert isinstance(op, Gather)
        data, indices = node.inputs
        shape = data.shape
        outer, length = math.prod(shape[: op.axis]), shape[op.axis]
        inner, count = math.prod(shape[op.axis + 1 :]), indices.type.size
        kind = C_TYPES[node.type.dtype]
        arguments = []
        if data.constant is not None:
            arguments.append(f"const {kind}* table")
        if indices.constant is not None:
            arguments.append("const std::int32_t* indices")
            lookup = "const std::int64_t at = indices[i1];"
        else:
            index_kind = C_TYPES[indices.type.dtype]
            lookup = f"""std::int64_t at = indices[i1];
at += at < 0 ? {length} : 0;
at = at < 0 ? 0 : (at >= {length} ? {length - 1} : at);"""
        if count == 1:
            lookup = lookup.replace("[i1]", "[0]")
        if data.constant is None:
            arguments.append(f"const {kind}* table")
        if indices.constant is None:
            arguments.append(f"const {index_kind}* indices")
        from_outer = f"i0 * {length * inner} + " if outer > 1 else ""
        to = " + ".join(
            ["y"]
            + ([f"i0 * {count * inner}"] if outer > 1 else [])
            + ([f"i1 * {inner}"] if count > 1 else [])
        )
        size = node.type.dtype.size
        body = f"{lookup}\nstd::memcpy({to}, table + {from_outer}at * {inner}, {inner * size});"
        name = f"gather_{'x'.join(map(str, shape))}_axis{op.axis}_{count}_{node.type.dtype.value}"
        text = f"// {op}\nvoid {name}({', '.join([*arguments, f'{kind}* y'])}) {{\n"
        text += nest([outer, count], body) + "\n}\n"
        return LayerCode(name, text, (), ("cstdint", "cstring"))


KERNELS = (GatherKernel(),)
