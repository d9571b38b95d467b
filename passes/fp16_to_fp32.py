"""Half-precision networks are computed in single precision; inputs and outputs stay half."""

from __future__ import annotations

from dataclasses import replace

from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.ops.cast import Cast
from mdlc.compiler.ops.constant import Constant, constant
from mdlc.compiler.ops.input import Input
from mdlc.compiler.types import DType


def fp16_to_fp32(graph: Graph) -> Graph:
    """Puts casts behind half-precision inputs and before such outputs; widens all between."""
    if all(node.type.dtype is not DType.F16 for node in graph.order()):
        return graph

    inputs: dict[Node, Node] = {}

    def visit(old: Node, fresh: Node) -> Node:
        if isinstance(old.op, Constant) and old.type.dtype is DType.F16:
            return constant(old.op.value.astype("float32"), old.name)
        if isinstance(old.op, Input) and old.type.dtype is DType.F16:
            widened = make(Cast(DType.F32), old, name=old.name)
            inputs[widened] = old
            return widened
        if isinstance(old.op, Cast) and old.op.dtype is DType.F16:
            return make(Cast(DType.F32), *fresh.inputs, name=old.name)
        return fresh

    widened = graph.rebuild(visit)
    outputs = tuple(
        make(Cast(DType.F16), new, name=old.name) if old.type.dtype is DType.F16 else new
        for old, new in zip(graph.outputs, widened.outputs, strict=True)
    )
    originals = tuple(inputs.get(node, node) for node in widened.inputs)
    return replace(graph, inputs=originals, outputs=outputs)
