"""Softmax and LogSoftmax along any axis."""

from __future__ import annotations

import math

from mdlc.codegen.code import C_TYPES, Call, Function, Microkernel, offset
from mdlc.codegen.gemm.strides import nest
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.isa.scalar import SCALAR
from mdlc.codegen.kernel import Kernel, Schedule, Step
from mdlc.codegen.kernels.reduce import horizontal, lanes_combined
from mdlc.codegen.templates import render
from mdlc.codegen.tiles.formula import literal, math_function
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.softmax import Softmax
from mdlc.compiler.types import DType


def softmax_microkernel(isa: KernelIsa, log: bool, tail: bool) -> Microkernel:
    """A contiguous row: softmax_f32_neon<elements>(x, y)."""
    name = f"{'log_' if log else ''}softmax{'_tail' if tail else ''}_f32_{isa.suffix}"
    helpers = [h for h in (horizontal(isa, "max"), horizontal(isa, "add")) if h]
    if isa.lanes > 1:
        helpers.append(math_function("exp", isa))
    text = render(
        "cpp/kernels/softmax.j2",
        name=name,
        isa=isa,
        scalar=SCALAR,
        log=log,
        tail=tail,
        exp="std::exp" if isa.lanes == 1 else f"exp_f32_{isa.suffix}",
        max_of=lanes_combined(isa, "max", "top_lanes"),
        sum_of=lanes_combined(isa, "add", "total_lanes"),
        lowest=literal(-math.inf),
    )
    return Microkernel(name, text, tuple(helpers), ("cmath", "limits"))


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
            tail = isa.lanes > 1 and length % isa.lanes != 0
            row = softmax_microkernel(isa, op.log, tail)
            places = (offset(base, (outer, "i0", length)) for base in ("x", "y"))
            loops = nest([outer], Call(row, tuple(places), (length,)), shared=True)
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
