"""CumSum and CumProd: one pass along the axis."""

from __future__ import annotations

from mdlc.codegen.code import C_TYPES, Function
from mdlc.codegen.gemm.strides import joined, logical_strides, nest, pointer
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Kernel, Schedule, Step
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.cum_sum import CumSum
from mdlc.compiler.types import DType


class CumSumKernel(Kernel):
    """Element by element, with strides: every sum needs the one before it."""

    name = "cum_sum"
    layer = "CumSum"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        return isinstance(node.op, CumSum) and node.type.dtype in (
            DType.F32, DType.F64, DType.I32, DType.I64, DType.U32, DType.U64,
        )  # fmt: skip

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        return node.type.size * 4.0

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, op = step.node, step.node.op
        assert isinstance(op, CumSum)
        kind = C_TYPES[node.type.dtype]
        x_strides, y_strides = logical_strides(step.inputs[0]), logical_strides(step.output)
        axes = [a for a in range(len(node.shape)) if a != op.axis]
        dims = joined(
            [node.shape[a] for a in axes],
            [[x_strides[a] for a in axes], [y_strides[a] for a in axes]],
            0,
        )
        length = node.shape[op.axis]
        x_at, y_at = (
            f"[i * {stride}]" if stride != 1 else "[i]"
            for stride in (x_strides[op.axis], y_strides[op.axis])
        )
        loop = (
            f"int i = {length - 1}; i >= 0; --i" if op.reverse else f"int i = 0; i < {length}; ++i"
        )
        steps = [f"total {'*' if op.product else '+'}= from{x_at};", f"to{y_at} = total;"]
        if op.exclusive:
            steps.reverse()
        lines = "\n".join(steps)
        body = f"""const {kind}* from = {pointer("x", dims, 0)};
{kind}* to = {pointer("y", dims, 1)};
{kind} total = {1 if op.product else 0};
for ({loop}) {{
{lines}
}}"""
        shape = "x".join(map(str, node.type.physical_shape))
        name = "cumprod" if op.product else "cumsum"
        name += f"_{shape}_axis{node.type.physical_axis(op.axis)}"
        name += ("_exclusive" if op.exclusive else "") + ("_reverse" if op.reverse else "")
        if node.type.dtype is not DType.F32:
            name += f"_{node.type.dtype.value}"
        loops = nest([dim.count for dim in dims], body)
        return step.function(name, loops, comment=[op.words])


KERNELS = (CumSumKernel(),)
