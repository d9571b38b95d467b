"""ArgMax and ArgMin: one pass along the axis."""

from __future__ import annotations

from mdlc.codegen.code import C_TYPES, Function, times
from mdlc.codegen.gemm.strides import joined, logical_strides, nest, pointer
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Kernel, Schedule, Step
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.arg_reduce import ArgReduce
from mdlc.compiler.types import DType


class ArgReduceKernel(Kernel):
    """Element by element, with strides."""

    name = "arg_reduce"
    layer = "ArgReduce"
    pitched_input = True

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        # Halves are bits here, and do not compare as numbers.
        return isinstance(node.op, ArgReduce) and node.inputs[0].type.dtype is not DType.F16

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        return node.inputs[0].type.size * 2.0

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, op = step.node, step.node.op
        assert isinstance(op, ArgReduce)
        source = node.inputs[0].type
        kind = C_TYPES[source.dtype]
        x_strides, own = logical_strides(step.inputs[0]), list(logical_strides(step.output))
        if not op.keepdims:
            own.insert(op.axis, 0)
        axes = [a for a in range(source.rank) if a != op.axis]
        dims = joined(
            [source.shape[a] for a in axes],
            [[x_strides[a] for a in axes], [own[a] for a in axes]],
            0,
        )
        stride = x_strides[op.axis]
        compare = (">" if op.kind == "max" else "<") + ("=" if op.last else "")
        at = f"row[{times(stride, 'i')}]"
        # No loop of one trip or none.
        length = source.shape[op.axis]
        head = f"for (int i = 1; i < {length}; ++i)" if length > 2 else "const int i = 1;"
        search = f"""const {kind}* row = {pointer("x", dims, 0)};
{kind} best = row[0];
int where = 0;
{head} {{
if ({at} {compare} best) {{
best = {at};
where = i;
}}
}}
*({pointer("y", dims, 1)}) = where;"""
        body = search if length > 1 else f"*({pointer('y', dims, 1)}) = 0;"
        shape = "x".join(map(str, source.physical_shape))
        name = f"arg{op.kind}_{shape}_axis{source.physical_axis(op.axis)}"
        loops = nest([dim.count for dim in dims], body)
        return step.function(name, loops, comment=[op.words])


KERNELS = (ArgReduceKernel(),)
