"""Softmax and LogSoftmax along any axis."""

from __future__ import annotations

import math

from mdlc.codegen.code import C_TYPES, Call, Function, offset
from mdlc.codegen.gemm.strides import nest
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Kernel, Schedule, Step
from mdlc.codegen.tiles.formula import literal
from mdlc.codegen.tiles.softmax import SoftmaxRow
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.softmax import Softmax
from mdlc.compiler.types import DType


class SoftmaxKernel(Kernel):
    """Rows on vectors; other axes element by element with a stride."""

    name = "softmax"
    layer = "Softmax"

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        return isinstance(node.op, Softmax) and node.type.dtype in (DType.F32, DType.F64)

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        return node.type.size / isa.lanes * 20

    def in_place(self, node: Node) -> tuple[int, ...]:
        return (0,)

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, op = step.node, step.node.op
        assert isinstance(op, Softmax)
        shape = node.type.physical_shape
        axis = node.type.physical_axis(op.axis)
        length, inner = shape[axis], math.prod(shape[axis + 1 :])
        outer = math.prod(shape[:axis])
        name = f"{'log' if op.log else ''}softmax_{'x'.join(map(str, shape))}_axis{axis}"
        kind = C_TYPES[node.type.dtype]
        if node.type.dtype is DType.F64:
            name += "_f64"
        elif inner == 1:
            row = SoftmaxRow(op.log, tail=length % isa.lanes != 0).microkernel(isa)
            places = (offset(base, (outer, "i0", length)) for base in ("x", "y"))
            loops = nest([outer], Call(row, (*places, length)), shared=True)
            return step.function(name, loops, comment=[op.words])
        result = "x[j] - top - log_total" if op.log else "std::exp(x[j] - top) * scale"
        loop = f"for (int j = 0; j < {length * inner}; j += {inner}) {{\n"
        final = f"const {kind} log_total = std::log(total);" if op.log else (
            f"const {kind} scale = {literal(1.0, node.type.dtype)} / total;"
        )  # fmt: skip
        from_, to = (
            offset(base, (outer, "i0", length * inner), (inner, "i1", 1))
            for base in ("all_x", "all_y")
        )
        body = f"""const {kind}* x = {from_};
{kind}* y = {to};
{kind} top = x[0];
{loop}top = x[j] > top ? x[j] : top;
}}
{kind} total = {literal(0.0, node.type.dtype)};
{loop}total += std::exp(x[j] - top);
}}
{final}
{loop}y[j] = {result};
}}"""
        return step.function(
            name,
            nest([outer, inner], body, shared=True),
            comment=[op.words],
            inputs=("all_x",),
            output="all_y",
            includes=("cmath",),
        )


KERNELS = (SoftmaxKernel(),)
