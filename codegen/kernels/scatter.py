"""ScatterElements and ScatterND: a copy, then entries or slices written at indices, in order."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mdlc.codegen.code import C_TYPES, Body, Function, advanced, times
from mdlc.codegen.gemm.strides import joined, logical_strides, nest, pointer
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Kernel, Schedule, Step, View
from mdlc.codegen.tiles.operands import constants_of, index_or_none, runtime_of
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.scatter_elements import ScatterElements
from mdlc.compiler.ops.scatter_nd import ScatterND
from mdlc.compiler.types import Array, DType, Layout

_NAMES = ("x", "indices", "updates")
_COMBINED = {
    "none": "{1}",
    "add": "{0} + {1}",
    "mul": "{0} * {1}",
    "max": "{0} < {1} ? {1} : {0}",
    "min": "{1} < {0} ? {1} : {0}",
}


class ScatterKernel(Kernel):
    """Over the input where nobody reads that afterwards; indices outside write nothing."""

    name = "scatter"
    layer = "Scatter"

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        op = node.op
        if not isinstance(op, ScatterElements | ScatterND):
            return False
        # Halves are bits here, which do not add up.
        numbers = op.reduction == "none" or node.type.dtype not in (DType.F16, DType.BOOL)
        return numbers and all(s.type.layout is Layout.PLAIN for s in (node, *node.inputs))

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        return node.type.nbytes / isa.core.stream_bytes + node.inputs[2].type.size * 3.0

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        return constants_of(node, _NAMES)

    def in_place(self, node: Node) -> Sequence[int]:
        return (0,)

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, op = step.node, step.node.op
        x, indices = node.inputs[0].type, node.inputs[1].type
        marks = [type(op).__name__.lower(), *("x".join(map(str, t.shape)) for t in (x, indices))]
        if isinstance(op, ScatterElements):
            marks.append(f"axis{op.axis}")
            body = _elements(op, node)
        else:
            assert isinstance(op, ScatterND)
            body = _slices(op, node)
        marks += [op.reduction] if op.reduction != "none" else []
        marks += [x.dtype.value, indices.dtype.value]
        marks.append("".join("c" if s.constant is not None else "r" for s in node.inputs))
        return step.function(
            "_".join(marks),
            f"if (y != x) std::memcpy(y, x, {x.nbytes});",
            body,
            comment=[op.words],
            inputs=runtime_of(node, _NAMES),
            needs=(index_or_none(),),
            includes=("cstdint", "cstring"),
        )


def _write(reduction: str, kind: str, to: str, value: str) -> str:
    combined = _COMBINED[reduction].format(to, value)
    return f"{to} = static_cast<{kind}>({combined});" if reduction != "none" else f"{to} = {value};"


def _elements(op: ScatterElements, node: Node) -> Body:
    x, indices = node.inputs[0].type, node.inputs[1].type
    own = logical_strides(View.of(indices, 0))
    to = list(logical_strides(View.of(x, 0)))
    stride, to[op.axis] = to[op.axis], 0
    dims = joined(indices.shape, [own, to], 0)
    at = f"index_or_none(*({pointer('indices', dims, 0)}), {x.shape[op.axis]})"
    place = f"({pointer('y', dims, 1)})[{'at' if stride == 1 else f'at * {stride}'}]"
    write = _write(op.reduction, C_TYPES[x.dtype], place, f"*({pointer('updates', dims, 0)})")
    body = f"const std::int64_t at = {at};\nif (at >= 0) {{\n{write}\n}}"
    return nest([dim.count for dim in dims], body)


def _slices(op: ScatterND, node: Node) -> Body:
    x, indices = node.inputs[0].type, node.inputs[1].type
    depth = indices.shape[-1]
    count, inner = math.prod(indices.shape[:-1]), math.prod(x.shape[depth:])
    lines, terms = [], []
    for k in range(depth):
        index = advanced(times(depth, "i0"), k) if count > 1 else str(k)
        lines.append(f"const std::int64_t at{k} = index_or_none(indices[{index}], {x.shape[k]});")
        step = math.prod(x.shape[k + 1 :])
        terms.append(times(step, f"at{k}"))
    kind = C_TYPES[x.dtype]
    of = f"updates + {times(inner, 'i0')}" if count > 1 else "updates"
    to = " + ".join(["y", *terms])
    if op.reduction == "none":
        write = f"std::memcpy({to}, {of}, {inner * x.dtype.size});"
    elif inner == 1:
        write = _write(op.reduction, kind, f"*({to})", f"*({of})")
    else:
        write = (
            f"{kind}* to = {to};\nconst {kind}* of = {of};\n"
            f"for (int i = 0; i < {inner}; ++i) {{\n"
            f"{_write(op.reduction, kind, 'to[i]', 'of[i]')}\n}}"
        )
    if depth:
        inside = " && ".join(f"at{k} >= 0" for k in range(depth))
        write = f"if ({inside}) {{\n{write}\n}}"
    return nest([count], lines, write)


KERNELS = (ScatterKernel(),)
