"""Matrix products of any element type, and dense layers whose weights come at run time.

Element by element; in float32 with constants or two run-time matrices, the vector kernels
(conv_direct, matmul) compute the layer.
"""

from __future__ import annotations

from mdlc.codegen.code import C_TYPES, Function, Microkernel, Statement
from mdlc.codegen.gemm.strides import Dim, broadcast_strides, logical_strides, nest, pointer
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Kernel, Schedule, Step
from mdlc.codegen.tiles.epilogue import Epilogue
from mdlc.codegen.tiles.operands import constants_of, runtime_of, sum_type
from mdlc.codegen.tiles.plain import input_view
from mdlc.codegen.tiles.scalar_epilogue import epilogue_value
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.dense import Dense
from mdlc.compiler.ops.matmul import MatMul
from mdlc.compiler.types import Array, DType, Layout


def _names(node: Node) -> list[str]:
    if isinstance(node.op, MatMul):
        return ["a", "b"]
    assert isinstance(node.op, Dense)
    return ["a", "b", "bias"] + ["slope"] * node.op.has_slope


class MatMulAny(Kernel):
    """All types but half precision, wherever the parameters come from."""

    name = "matmul_any"
    layer = "MatMul"

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        if not isinstance(node.op, MatMul | Dense) or node.type.layout is not Layout.PLAIN:
            return False
        kinds = {source.type.dtype for source in (node, *node.inputs)}
        if kinds == {DType.F32}:
            parameters = node.inputs[1:] if isinstance(node.op, Dense) else ()
            return any(source.constant is None for source in parameters)
        return len(kinds) == 1 and not kinds & {DType.F16, DType.BOOL}

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        return 4.0 * node.op.cost([s.type for s in node.inputs], node.type).macs

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        return constants_of(node, _names(node))

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, op = step.node, step.node.op
        assert isinstance(op, MatMul | Dense)
        views = [input_view(step, index) for index in range(len(node.inputs))]
        rank = len(node.shape)
        own = logical_strides(step.output)
        if isinstance(op, MatMul):
            a, b = ([*broadcast_strides(view, rank)] for view in views)
            # Of a size of 1, too, the sum's own stride is wanted.
            along, down = logical_strides(views[0])[-1], logical_strides(views[1])[-2]
            a[-1] = b[-2] = 0
        else:
            a = [*logical_strides(views[0])[:-1], 0]
            along = logical_strides(views[0])[-1]
            rows, down = logical_strides(views[1])
            b = [0] * (rank - 1) + [rows]
        depth = node.inputs[0].shape[-1]
        dims = [
            Dim(count, (own[i], a[i], b[i], int(i == rank - 1)))
            for i, count in enumerate(node.shape)
        ]
        kind, total = C_TYPES[node.type.dtype], sum_type(node.type.dtype)
        needs: list[Microkernel] = []
        value, start = "total", "0"
        includes: tuple[str, ...] = ()
        if isinstance(op, Dense):
            start = f"*({pointer('bias', dims, 3)})"
            value, includes = epilogue_value(
                Epilogue(op.activation),
                "total",
                slope=f"*({pointer('slope', dims, 3)})",
                residual="",
                dtype=node.type.dtype,
                needs=needs,
            )
        cast = "" if node.type.dtype.is_float else f"static_cast<{total}>"
        result = value if node.type.dtype.is_float else f"static_cast<{kind}>({value})"
        left, right = _at("row", along), _at("column", down)
        lines: list[Statement] = [
            f"const {kind}* row = {pointer('a', dims, 1)};",
            f"const {kind}* column = {pointer('b', dims, 2)};",
            f"{total} total = {start};",
            f"for (int k = 0; k < {depth}; ++k) {{",
            f"total += {f'{cast}({left}) * {right}' if cast else f'{left} * {right}'};",
            "}",
            f"*({pointer('y', dims, 0)}) = {result};",
        ]
        shapes = "_by_".join("x".join(map(str, s.shape)) for s in node.inputs[:2])
        return step.function(
            f"matmul_any_{shapes}_{node.type.dtype.value}",
            nest([dim.count for dim in dims], lines, shared=True),
            comment=[op.words],
            inputs=runtime_of(node, _names(node)),
            needs=needs,
            includes=("cstdint", *includes),
        )


def _at(base: str, step: int) -> str:
    return f"{base}[k]" if step == 1 else f"{base}[k * {step}]"


KERNELS = (MatMulAny(),)
