"""A constant that is an output of the network: copied from the weights."""

from __future__ import annotations

from mdlc.codegen.code import Function
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Kernel, Schedule, Step
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.constant import Constant
from mdlc.compiler.types import Array


class ConstantKernel(Kernel):
    """One memcpy."""

    name = "constant"
    layer = "Constant"

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        return isinstance(node.op, Constant)

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        return node.type.nbytes / 32

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        assert isinstance(node.op, Constant)
        return {"value": node.type.to_physical(node.op.value)}

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        name = f"constant_{step.node.type.nbytes}_bytes_{step.node.type.dtype.value}"
        return step.function(
            name,
            f"std::memcpy(y, value, {step.node.type.nbytes});",
            comment=["Copies a constant."],
            inputs=(),
            includes=("cstring",),
        )


KERNELS = (ConstantKernel(),)
