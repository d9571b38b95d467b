"""Single precision narrowed to half, layer by layer, where a target computes in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.ops.cast import Cast
from mdlc.compiler.ops.constant import Constant, constant
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.input import Input
from mdlc.compiler.types import Array, DType

LARGEST = 65504.0  # of the finite numbers of half precision


@dataclass(frozen=True)
class Narrowed:
    """The graph with half-precision tensors.

    Attributes:
        half: names of the layers that compute in half precision.
        kept: those that would, but for the reason given.
    """

    graph: Graph
    half: tuple[str, ...] = ()
    kept: Mapping[str, str] = field(default_factory=dict)


def fp32_to_fp16(
    graph: Graph,
    computes: Callable[[Node], bool],
    outside: Callable[[Node], str],
    *,
    lone: bool = False,
) -> Narrowed:
    """Computes in half precision what may be, with casts where it meets what may not.

    Inputs and outputs stay as they are. Layers that multiply begin it; others follow where an
    operand is in half precision already, so that a lone one is not worth two casts.

    Args:
        computes: whether the target computes a node, given on half-precision operands.
        outside: why a node of the old graph may leave the range of half precision, or "".
        lone: narrow layers that neither multiply nor follow one that is, too.
    """
    done: dict[Node, Node] = {}
    casts: dict[tuple[Node, DType], Node] = {}
    half: list[str] = []
    kept: dict[str, str] = {}
    filters_of = {node.inputs[1] for node in graph.order() if isinstance(node.op, Conv2D)}

    def of(node: Node, dtype: DType) -> Node:
        """What stands for an old node, in an element type if it is a float."""
        new = done[node]
        if new.type.dtype is dtype or new.type.dtype not in (DType.F16, DType.F32):
            return new
        if (node, dtype) not in casts:
            if isinstance(new.op, Constant):
                filters = dtype is DType.F16 and node in filters_of
                value = rounded(new.op.value) if filters else new.op.value.astype(dtype.numpy)
                made = constant(value, new.name)
                casts[node, dtype] = Node(
                    made.op, (), made.type.with_layout(new.type.layout), new.name
                )
            else:
                suffix = "half" if dtype is DType.F16 else "float"
                name = f"{new.name}_{suffix}" if new.name else ""
                casts[node, dtype] = make(Cast(dtype), new, name=name, layout_of=new)
        return casts[node, dtype]

    def on(node: Node, dtype: DType) -> Node:
        return node.with_inputs(of(source, dtype) for source in node.inputs)

    for node in graph.order():
        done[node] = node
        if isinstance(node.op, Input | Constant | Cast) or not _computes_floats(node):
            if node.inputs:
                done[node] = on(node, DType.F32)
            continue
        runtime = [source for source in node.inputs if source.constant is None]
        macs = node.op.cost([source.type for source in node.inputs], node.type).macs
        begun = any(done[source].type.dtype is DType.F16 for source in runtime)
        large = _constants_outside(node)
        wanted = (macs or begun or lone) and not large
        narrowed = _narrowed(on, node) if wanted else None
        if large and (macs or begun):
            kept[node.name or type(node.op).__name__] = large
        if narrowed is None or DType.F32 in _floats(narrowed) or not computes(narrowed):
            done[node] = on(node, DType.F32)
            continue
        reason = outside(node)
        if reason:
            kept[node.name or type(node.op).__name__] = reason
            done[node] = on(node, DType.F32)
            continue
        if macs:
            half.append(node.name)
        done[node] = narrowed
    outputs = tuple(
        of(node, node.type.dtype) if node.type.dtype.is_float else done[node]
        for node in graph.outputs
    )
    return Narrowed(replace(graph, outputs=outputs), tuple(half), kept)


def rounded(filters: Array) -> Array:
    """Filters [M, C, kH, kW] in half precision, each [kH, kW] with the sum that it had.

    Neighbouring pixels are alike, so that errors of a filter's taps add up instead of cancelling.
    Every tap but the largest is therefore rounded with what the larger ones have lost; none moves
    by more than the distance of two halves around it. (Error feedback; rounding of sequences such
    that sums are kept.)
    """
    taps = filters.reshape(*filters.shape[:2], -1).astype(np.float64)
    order = np.argsort(-np.abs(taps), axis=2, kind="stable")
    descending = np.take_along_axis(taps, order, 2)
    lost = np.zeros(taps.shape[:2])
    for tap in np.moveaxis(descending, 2, 0):
        spacing = np.spacing(np.abs(tap).astype(np.float16) / 2).astype(np.float64) * 2
        wanted = np.clip(tap + np.clip(lost, -spacing / 2, spacing / 2), -LARGEST, LARGEST)
        nearest = wanted.astype(np.float16).astype(np.float64)
        lost += tap - nearest
        tap[...] = nearest
    found = np.empty_like(taps)
    np.put_along_axis(found, order, descending, 2)
    return found.astype(np.float16).reshape(filters.shape)


def _narrowed(on: Callable[[Node, DType], Node], node: Node) -> Node | None:
    """The node on half-precision operands; None where its operator takes none."""
    try:
        return on(node, DType.F16)
    except MdlcError:
        return None


def _floats(node: Node) -> set[DType]:
    """The floating element types of a node and its operands."""
    return {each.type.dtype for each in (node, *node.inputs) if each.type.dtype.is_float}


def _computes_floats(node: Node) -> bool:
    return bool(node.inputs) and _floats(node) == {DType.F32}


def _constants_outside(node: Node) -> str:
    for source in node.inputs:
        value = source.constant
        if value is not None and value.dtype.kind == "f" and _largest(value) > LARGEST:
            return f"a constant of {_largest(value):.3g}"
    return ""


def _largest(value: Array) -> float:
    finite = np.abs(value[np.isfinite(value)])
    return float(finite.max(initial=0.0))
