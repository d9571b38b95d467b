"""GatherElements and GatherND: entries or slices at indices, copied one by one."""

from __future__ import annotations

import math

from mdlc.codegen.code import C_TYPES, Body, Function, times
from mdlc.codegen.gemm.strides import Dim, joined, logical_strides, nest, pointer
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Kernel, Schedule, Step, View
from mdlc.codegen.tiles.operands import constants_of, nearest_index, runtime_of
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.gather_elements import GatherElements
from mdlc.compiler.ops.gather_nd import GatherND
from mdlc.compiler.types import Array, Layout, TensorType

_NAMES = ("x", "indices")


class GatherByIndexKernel(Kernel):
    """Element by element, or slice by slice; indices outside are the nearest inside."""

    name = "gather_by_index"
    layer = "Gather"

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        return isinstance(node.op, GatherElements | GatherND) and all(
            source.type.layout is Layout.PLAIN for source in (node, *node.inputs)
        )

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        return node.type.size * 3.0

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        return constants_of(node, _NAMES)

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, op = step.node, step.node.op
        x, indices = (source.type for source in node.inputs)
        marks = [type(op).__name__.lower(), *("x".join(map(str, t.shape)) for t in (x, indices))]
        if isinstance(op, GatherElements):
            marks.append(f"axis{op.axis}")
            body = _elements(op, x, indices)
        else:
            assert isinstance(op, GatherND)
            marks.append(f"batch{op.batch_dims}")
            body = _slices(op, x, indices)
        name = "_".join([*marks, node.type.dtype.value, indices.dtype.value])
        name += "".join("c" if s.constant is not None else "r" for s in node.inputs)
        return step.function(
            name,
            body,
            comment=[op.words],
            inputs=runtime_of(node, _NAMES),
            needs=(nearest_index(),),
            includes=("cstdint", "cstring"),
        )


def _elements(op: GatherElements, x: TensorType, indices: TensorType) -> Body:
    own = logical_strides(View.of(indices, 0))
    of = list(logical_strides(View.of(x, 0)))
    stride, of[op.axis] = of[op.axis], 0
    dims = joined(indices.shape, [own, of], 0)
    at = f"nearest_index(*({pointer('indices', dims, 0)}), {x.shape[op.axis]})"
    from_ = f"({pointer('x', dims, 1)})[{at}{f' * {stride}' if stride != 1 else ''}]"
    body = f"*({pointer('y', dims, 0)}) = {from_};"
    return nest([dim.count for dim in dims], body, shared=True)


def _slices(op: GatherND, x: TensorType, indices: TensorType) -> Body:
    batch, depth = op.batch_dims, indices.shape[-1]
    count = math.prod(indices.shape[batch:-1])
    inner = math.prod(x.shape[batch + depth :])
    dims = [
        Dim(
            math.prod(indices.shape[:batch]),
            (count * depth, math.prod(x.shape[batch:]), count * inner),
        ),
        Dim(count, (depth, 0, inner)),
    ]
    of = [str(pointer("x", dims, 1))]
    for k in range(depth):
        step = math.prod(x.shape[batch + k + 1 :])
        at = f"nearest_index(index[{k}], {x.shape[batch + k]})"
        of.append(times(step, at))
    body = (
        f"const {C_TYPES[indices.dtype]}* index = {pointer('indices', dims, 0)};\n"
        f"std::memcpy({pointer('y', dims, 2)}, {' + '.join(of)}, {inner * x.dtype.size});"
    )
    return nest([dim.count for dim in dims], body, shared=True)


KERNELS = (GatherByIndexKernel(),)
