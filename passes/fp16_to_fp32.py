"""Networks of 16-bit floats are computed in single precision; inputs and outputs stay."""

from __future__ import annotations

from dataclasses import replace

from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.ops.bit_cast import BitCast
from mdlc.compiler.ops.cast import Cast
from mdlc.compiler.ops.constant import Constant, constant
from mdlc.compiler.ops.input import Input
from mdlc.compiler.types import DType

_HALVES = (DType.F16, DType.BF16)


def fp16_to_fp32(graph: Graph) -> Graph:
    """Puts casts behind 16-bit inputs and before such outputs; widens all between.

    A cast to bfloat16 that the model has rounds nevertheless: it loses more than float16, and
    models that cast do so to see what is lost.
    """
    if all(node.type.dtype not in _HALVES for node in graph.order()):
        return graph

    done: dict[Node, Node] = {}
    for old in graph.order():
        sources = [done[source] for source in old.inputs]
        if isinstance(old.op, BitCast):  # its bits are those of the narrow type
            sources = [_narrowed(new, it) for new, it in zip(sources, old.inputs, strict=True)]
        done[old] = _widened(old, old.with_inputs(sources))
    outputs = tuple(_narrowed(done[old], old) for old in graph.outputs)
    return replace(graph, outputs=outputs)


def _widened(old: Node, fresh: Node) -> Node:
    """What stands for a node: float32 where it was of 16 bits.

    Args:
        fresh: the node on its new inputs.
    """
    if old.type.dtype not in _HALVES:
        return fresh
    if isinstance(old.op, Constant):
        return constant(old.op.value.astype("float32"), old.name)
    if isinstance(old.op, Input | BitCast):
        return make(Cast(DType.F32), fresh, name=old.name)
    if isinstance(old.op, Cast):
        source = fresh.inputs[0]
        if old.op.dtype is DType.BF16:
            source = make(Cast(DType.BF16), source, name=old.name)
        return make(Cast(DType.F32), source, name=old.name)
    return fresh


def _narrowed(new: Node, old: Node) -> Node:
    """A node as narrow as it was."""
    if new.type.dtype is old.type.dtype:
        return new
    if isinstance(new.op, Cast) and new.inputs[0].type.dtype is old.type.dtype:
        return new.inputs[0]
    return make(Cast(old.type.dtype), new, name=old.name)
