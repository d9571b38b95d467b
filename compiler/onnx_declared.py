"""Parameters that a model computes or is given at run time, and that its declared shapes settle.

A Reshape whose target is an input still has an output of a shape that the model declares, and an
output's shape leaves a reduction few choices of axes. What fits is computed; where several do,
the parameter chooses among the results at run time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from mdlc.compiler.ir import Node, make
from mdlc.compiler.ops.add import Add
from mdlc.compiler.ops.and_ import And
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.equal import Equal
from mdlc.compiler.ops.less import Less
from mdlc.compiler.ops.or_ import Or
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.slice import Slice
from mdlc.compiler.ops.where import Where
from mdlc.compiler.types import Array

Shape = tuple[int, ...]
# Results that are computed for a parameter at run time to choose from.
MOST_CHOICES = 8


@dataclass(frozen=True)
class Unsettled:
    """A node with a parameter that is not a constant.

    Attributes:
        inputs: imported inputs; None where one is absent.
        declared: shapes of the outputs; None where the model does not say.
        attributes: of the node.
    """

    op_type: str
    opset: int
    inputs: Sequence[Node | None]
    declared: Sequence[Shape | None]
    attributes: Mapping[str, Any]

    def rank(self) -> int:
        """Axes of input 0."""
        return len(self.inputs[0].shape) if self.inputs and self.inputs[0] is not None else 0

    def shape(self) -> Shape:
        """Shape of input 0."""
        return self.inputs[0].shape if self.inputs and self.inputs[0] is not None else ()


@dataclass(frozen=True)
class Choices:
    """What a parameter may be.

    Attributes:
        index: the input.
        values: what fits the declared shapes; the last one is taken where no other applies.
        axes: the parameter lists axes of a tensor of that rank, in any order.
    """

    index: int
    values: Sequence[Array]
    axes: int = 0


def declared_shapes(graph: onnx.GraphProto) -> dict[str, Shape]:
    """Shapes that a model gives for its tensors, where all dimensions are fixed."""
    found: dict[str, Shape] = {}
    for value in (*graph.value_info, *graph.output):
        kind = value.type.tensor_type
        if value.type.WhichOneof("value") != "tensor_type" or not kind.HasField("shape"):
            continue
        if all(dim.HasField("dim_value") for dim in kind.shape.dim):
            found[value.name] = tuple(dim.dim_value for dim in kind.shape.dim)
    return found


def choices(n: Unsettled) -> Choices | None:
    """What the parameter at run time may be; None where there is none, or nothing is known."""
    found = _ASKED.get("Reduce" if n.op_type.startswith("Reduce") else n.op_type)
    if found is None:
        return None
    index, ask = found
    node = n.inputs[index] if index < len(n.inputs) else None
    if node is None or node.constant is not None:
        return None
    declared = n.declared[0] if n.declared else None
    values = list(itertools.islice(ask(n, node, declared), MOST_CHOICES + 1))
    if not values or len(values) > MOST_CHOICES:
        return None
    axes = n.rank() if n.op_type.startswith(("Reduce", "Cum")) else 0
    return Choices(index, values, axes)


def chosen(parameter: Node, found: Choices, results: Sequence[Node], name: str) -> Node:
    """One of the results, by the value that the parameter has."""
    result = results[-1]
    for value, other in zip(found.values[-2::-1], results[-2::-1], strict=True):
        mask = _is(parameter, value, found.axes)
        result = make(Where(), mask, other, result, name=name)
    return result


def _is(parameter: Node, value: Array, rank: int) -> Node:
    """Whether a list of axes is the given one, in any order, counted from either end."""
    kind = parameter.type.dtype.numpy
    negative = make(Less(), parameter, constant(np.zeros((), kind)))
    wrapped = make(Add(), parameter, constant(np.array(rank, kind)))
    axes = make(Reshape((parameter.type.size,)), make(Where(), negative, wrapped, parameter))
    every: Node | None = None
    for at in range(parameter.type.size):
        axis = make(Reshape(()), make(Slice.along(axes.shape, 0, at, 1), axes))
        anyone: Node | None = None
        for one in value.reshape(-1):
            same = make(Equal(), axis, constant(np.array(one, kind)))
            anyone = same if anyone is None else make(Or(), anyone, same)
        assert anyone is not None
        every = anyone if every is None else make(And(), every, anyone)
    assert every is not None
    return every


def _ints(values: Sequence[int]) -> Array:
    return np.array(values, np.int64)


def _whole(n: Unsettled, node: Node, declared: Shape | None) -> Iterator[Array]:
    """The parameter is the declared shape itself."""
    if declared is not None:
        yield _ints(declared)


def _length(axis: int | str) -> Callable[[Unsettled, Node, Shape | None], Iterator[Array]]:
    """The parameter is the length of an axis of the output, or of that which an attribute names."""

    def ask(n: Unsettled, node: Node, declared: Shape | None) -> Iterator[Array]:
        at = axis if isinstance(axis, int) else int(n.attributes.get(axis, -1))
        if declared is not None and -len(declared) <= at < len(declared):
            yield np.full(node.shape, declared[at], node.type.dtype.numpy)

    return ask


def _repeats(n: Unsettled, node: Node, declared: Shape | None) -> Iterator[Array]:
    old = n.shape()
    if declared is not None and len(old) == len(declared) and 0 not in old:
        yield _ints([d // o for d, o in zip(declared, old, strict=True)])


def _pieces(n: Unsettled, node: Node, declared: Shape | None) -> Iterator[Array]:
    axis = int(n.attributes.get("axis", 0))
    lengths = [shape[axis] for shape in n.declared if shape is not None and shape]
    if len(lengths) == len(n.declared) == node.type.size:
        yield _ints(lengths)


def _squeezed(n: Unsettled, node: Node, declared: Shape | None) -> Iterator[Array]:
    """Any axes that fit: the elements stay in order."""
    old = n.shape()
    if declared is None:
        return
    unsqueeze = n.op_type == "Unsqueeze"
    long, short = (declared, old) if unsqueeze else (old, declared)
    for axes in itertools.combinations(range(len(long)), node.type.size):
        rest = tuple(d for a, d in enumerate(long) if a not in axes)
        if rest == short and all(long[a] == 1 for a in axes):
            yield _ints(axes)
            return


def _reduced(n: Unsettled, node: Node, declared: Shape | None) -> Iterator[Array]:
    """Axes that leave the declared shape."""
    old, keeps = n.shape(), bool(n.attributes.get("keepdims", 1))
    if declared is None:
        return
    for axes in itertools.combinations(range(len(old)), node.type.size):
        left = [1 if a in axes else d for a, d in enumerate(old) if keeps or a not in axes]
        if tuple(left) == declared:
            yield _ints(axes)


def _any_axis(n: Unsettled, node: Node, declared: Shape | None) -> Iterator[Array]:
    for axis in range(n.rank()):
        yield np.full(node.shape, axis, node.type.dtype.numpy)


def _crop(n: Unsettled, node: Node, declared: Shape | None) -> Iterator[Array]:
    if declared is not None:
        axes = n.attributes.get("axes") or range(len(declared))
        yield _ints([declared[axis] for axis in axes])


def _sizes(n: Unsettled, node: Node, declared: Shape | None) -> Iterator[Array]:
    """Resize by sizes: those of the output, unless they only bound it."""
    policy = n.attributes.get("keep_aspect_ratio_policy", "stretch")
    if declared is not None and policy == "stretch":
        yield from _crop(n, node, declared)


# The input that is asked for, and what it may be.
_ASKED: Mapping[
    str, tuple[int, Callable[[Unsettled, Node, Shape | None], Iterator[Array]]]
] = {
    "BlackmanWindow": (0, _length(0)),
    "CenterCropPad": (1, _crop),
    "ConstantOfShape": (0, _whole),
    "CumProd": (1, _any_axis),
    "CumSum": (1, _any_axis),
    "Expand": (1, _whole),
    "HammingWindow": (0, _length(0)),
    "HannWindow": (0, _length(0)),
    "OneHot": (1, _length("axis")),
    "Reduce": (1, _reduced),
    "Reshape": (1, _whole),
    "Resize": (3, _sizes),
    "Split": (1, _pieces),
    "Squeeze": (1, _squeezed),
    "Tile": (1, _repeats),
    "TopK": (1, _length("axis")),
    "Unsqueeze": (1, _squeezed),
}  # fmt: skip
