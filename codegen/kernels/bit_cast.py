"""BitCast: a copy of the bytes."""

from __future__ import annotations

from mdlc.codegen.code import Function
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Kernel, Schedule, Step
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.bit_cast import BitCast


class BitCastKernel(Kernel):
    """All types of the same width; where memory is dense, one copy."""

    name = "bit_cast"
    layer = "Copy"

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        return isinstance(node.op, BitCast)

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        return node.type.nbytes / 16

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node = step.node
        shape = "x".join(map(str, node.type.physical_shape)) or "scalar"
        kinds = f"{node.inputs[0].type.dtype.value}_{node.type.dtype.value}"
        return step.function(
            f"bit_cast_{shape}_{kinds}",
            f"std::memcpy(y, x, {node.type.nbytes});",
            comment=[node.op.words],
            includes=("cstring",),
        )


KERNELS = (BitCastKernel(),)
