"""A constant that is an output of the network: copied from the weights."""

from __future__ import annotations

from mdlc.codegen.code import C_TYPES, LayerCode
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

    def emit(self, step: Step, isa: KernelIsa) -> LayerCode:
        kind = C_TYPES[step.node.type.dtype]
        name = f"constant_{step.node.type.nbytes}_bytes_{step.node.type.dtype.value}"
        text = f"// Copies a constant.\nvoid {name}(const {kind}* value, {kind}* y) {{\n"
        text += f"std::memcpy(y, value, {step.node.type.nbytes});\n}}\n"
        return LayerCode(name, text, (), ("cstring",))


KERNELS = (ConstantKernel(),)
