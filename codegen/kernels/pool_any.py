"""Max and average pooling in float64, element by element."""

from __future__ import annotations

import numpy as np

from mdlc.codegen.code import Function, Statement
from mdlc.codegen.gemm.strides import Dim, logical_strides, nest, pointer
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Kernel, Schedule, Step
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.average_pool2d import AveragePool2D
from mdlc.compiler.ops.max_pool2d import MaxPool2D
from mdlc.compiler.types import Array, DType


class PoolAny(Kernel):
    """What the vector kernels (pool, quantized_pool) do not do."""

    name = "pool_any"
    layer = "Pooling"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        return isinstance(node.op, MaxPool2D | AveragePool2D) and node.type.dtype is DType.F64

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        assert isinstance(node.op, MaxPool2D | AveragePool2D)
        kernel = node.op.window.kernel
        return node.type.size * (4.0 + 3 * kernel[0] * kernel[1])

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        if not isinstance(node.op, AveragePool2D):
            return {}
        counts = node.op.counts(node.inputs[0].shape[2:])
        return {"counts": np.ascontiguousarray(counts, np.float64)}

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, op = step.node, step.node.op
        assert isinstance(op, MaxPool2D | AveragePool2D)
        window, average = op.window, isinstance(op, AveragePool2D)
        images, channels, rows, columns = node.shape
        x, own = logical_strides(step.inputs[0]), logical_strides(step.output)
        dims = [
            Dim(images, (own[0], x[0], 0)),
            Dim(rows, (own[2], 0, columns)),
            Dim(columns, (own[3], 0, 1)),
            Dim(channels, (own[1], x[1], 0)),
        ]
        lines: list[Statement] = [
            f"const double* plane = {pointer('x', dims, 1)};",
            "double found = 0.0;" if average else
            "double found = -std::numeric_limits<double>::infinity();",
        ]  # fmt: skip
        names = [f"i{i}" if count > 1 else "0" for i, count in ((1, rows), (2, columns))]
        for axis, name in enumerate(("iy", "ix")):
            first = f"{names[axis]} * {window.stride[axis]} - {window.pads[axis]}"
            size, step_ = node.inputs[0].shape[2 + axis], window.dilation[axis]
            lines += [
                f"for (int k{axis} = 0; k{axis} < {window.kernel[axis]}; ++k{axis}) {{",
                f"const int {name} = {first} + k{axis} * {step_};",
                f"if ({name} < 0 || {name} >= {size}) continue;",
            ]
        value = f"plane[iy * {x[2]} + ix * {x[3]}]"
        lines += [
            f"const double value = {value};",
            "found += value;" if average else "if (!(value <= found)) found = value;",
            "}}",
            f"*({pointer('y', dims, 0)}) = found"
            + (f" / *({pointer('counts', dims, 2)});" if average else ";"),
        ]
        kind = "average" if average else "max"
        shape = "x".join(map(str, node.inputs[0].type.physical_shape))
        return step.function(
            f"{kind}_pool_any_{shape}",
            nest([dim.count for dim in dims], lines, shared=True),
            comment=[op.words],
            includes=() if average else ("limits",),
        )


KERNELS = (PoolAny(),)
