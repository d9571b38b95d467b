"""Sequences of ONNX that are built and taken apart within the model: lists of tensors at import."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from mdlc.compiler.ir import Node, make
from mdlc.compiler.onnx_control import ControlNode, Value, stack
from mdlc.compiler.ops.concat import Concat
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.slice import Slice

Made = list[Value]


def _items(n: ControlNode, index: int) -> tuple[Node, ...]:
    found = n.inputs[index] if index < len(n.inputs) else None
    if not isinstance(found, tuple):
        raise n.error(f"input {index} is not a sequence")
    return found


def _position(n: ControlNode, index: int, length: int) -> int | None:
    """A constant position; None where it is absent."""
    if index >= len(n.inputs) or n.inputs[index] is None:
        return None
    value = n.tensor(index).constant
    if value is None or value.size != 1:
        raise n.error("its position is computed at run time", "export it with a fixed position")
    at = int(value.reshape(-1)[0])
    if not -length <= at < length:
        raise n.error(f"position {at} is outside a sequence of {length}")
    return at % length


def _construct(n: ControlNode) -> Made:
    return [tuple(n.tensor(i) for i in range(len(n.inputs)))]


def _empty(n: ControlNode) -> Made:
    return [()]


def _at(n: ControlNode) -> Made:
    items = _items(n, 0)
    at = _position(n, 1, len(items))
    if at is None:
        raise n.error("its position is missing")
    return [items[at]]


def _length(n: ControlNode) -> Made:
    return [constant(np.array(len(_items(n, 0)), np.int64))]


def _insert(n: ControlNode) -> Made:
    items = _items(n, 0)
    at = _position(n, 2, len(items) + 1)
    at = len(items) if at is None else at
    return [(*items[:at], n.tensor(1), *items[at:])]


def _erase(n: ControlNode) -> Made:
    items = _items(n, 0)
    at = _position(n, 1, len(items))
    at = len(items) - 1 if at is None else at
    return [(*items[:at], *items[at + 1 :])]


def _concat(n: ControlNode) -> Made:
    items, given = _items(n, 0), n.attributes
    if not items:
        raise n.error("nothing is in the sequence that it joins")
    axis, rank = int(given.get("axis", 0)), len(items[0].shape)
    if given.get("new_axis", 0):
        return [stack(items, axis, n.scope.fold)]
    if not -rank <= axis < rank:
        raise n.error(f"axis {axis} is outside tensors of rank {rank}")
    return [items[0] if len(items) == 1 else n.scope.fold(make(Concat(axis % rank), *items))]


def _split(n: ControlNode) -> Made:
    x, given = n.tensor(0), n.attributes
    rank = len(x.shape)
    axis = int(given.get("axis", 0))
    if not -rank <= axis < rank:
        raise n.error(f"axis {axis} is outside a tensor of rank {rank}")
    axis %= rank
    length = x.shape[axis]
    sizes = [1] * length
    if len(n.inputs) > 1 and n.inputs[1] is not None:
        wanted = n.tensor(1).constant
        if wanted is None:
            raise n.error("its pieces are computed at run time", "export it with fixed sizes")
        if wanted.ndim:
            sizes = [int(size) for size in wanted]
        elif wanted > 0:
            each = int(wanted)
            sizes = [min(each, length - at) for at in range(0, length, each)]
        if sum(sizes) != length or min(sizes, default=0) < 0:
            raise n.error(f"pieces {sizes} do not make up axis {axis} of {x.type}")
    keeps = len(n.inputs) > 1 or bool(given.get("keepdims", 1))
    pieces, at = [], 0
    for size in sizes:
        piece = n.scope.fold(make(Slice.along(x.shape, axis, at, size), x, name=x.name))
        if not keeps:
            shape = (*x.shape[:axis], *x.shape[axis + 1 :])
            piece = n.scope.fold(make(Reshape(shape), piece, name=x.name))
        pieces.append(piece)
        at += size
    return [tuple(pieces)]


def _map(n: ControlNode) -> Made:
    """SequenceMap: the body on every item; other sequences go along, tensors stay."""
    body = n.graph("body")
    results: list[list[Node]] = [[] for _ in body.output]
    for number in range(len(_items(n, 0))):
        given: list[Value] = []
        for source in n.inputs:
            if source is None:
                raise n.error("an input is missing")
            given.append(_items_of(n, source)[number] if isinstance(source, tuple) else source)
        for found, result in zip(results, n.iteration(body, number, given), strict=True):
            if not isinstance(result, Node):
                raise n.error("its body makes a sequence")
            found.append(result)
    return [tuple(found) for found in results]


def _items_of(n: ControlNode, source: tuple[Node, ...]) -> tuple[Node, ...]:
    if len(source) != len(_items(n, 0)):
        raise n.error(f"its sequences have {len(_items(n, 0))} and {len(source)} items")
    return source


def _optional(n: ControlNode) -> Made:
    """Optional and OptionalGetElement: what is there is itself."""
    found = n.inputs[0] if n.inputs else None
    if found is None:
        raise n.error("its value is missing", "export the model without optional values")
    return [found]


def _has_element(n: ControlNode) -> Made:
    return [constant(np.array(bool(n.inputs) and n.inputs[0] is not None))]


def _identity(n: ControlNode) -> Made:
    return [_items(n, 0)]


SEQUENCES: Mapping[str, Callable[[ControlNode], Made]] = {
    "ConcatFromSequence": _concat,
    "Optional": _optional,
    "OptionalGetElement": _optional,
    "OptionalHasElement": _has_element,
    "SequenceAt": _at,
    "SequenceConstruct": _construct,
    "SequenceEmpty": _empty,
    "SequenceErase": _erase,
    "SequenceInsert": _insert,
    "SequenceLength": _length,
    "SequenceMap": _map,
    "SplitToSequence": _split,
}
# Operators on tensors that take sequences, too.
ALSO_SEQUENCES: Mapping[str, Callable[[ControlNode], Made]] = {"Identity": _identity}
