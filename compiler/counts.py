"""Tensors whose length depends on data: a bound as their shape, and a count beside them.

Shapes are static, so a tensor such as the indices that NonZero finds has as many entries as there
can be along one axis, and a second tensor says how many count; what stands behind those means
nothing. An operator that finds such entries gives both as one tensor of int64 (`Counted`):
its parts are slices. Operators that keep entries apart (`Op.follows`) carry the count on; one
that would mix entries with what stands behind them cannot be compiled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Count, Graph, Node, make
from mdlc.compiler.op import Op
from mdlc.compiler.ops.cast import Cast
from mdlc.compiler.ops.concat import Concat
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.gather import Gather
from mdlc.compiler.ops.less import Less
from mdlc.compiler.ops.min import Min
from mdlc.compiler.ops.mul import Mul
from mdlc.compiler.ops.reduce import Reduce
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.slice import Slice
from mdlc.compiler.ops.where import Where
from mdlc.compiler.types import DType, TensorType

# Entries that a tensor of open length has room for, unless the user gives a bound.
MOST_ENTRIES = 1 << 24
CUT = "cut the model before it: an output of that kind has a count"


@dataclass(frozen=True)
class Part:
    """A tensor inside the result of a Counted.

    Attributes:
        first: where it begins.
        shape: of the tensor.
        axis: along which the count counts; None where all entries do.
    """

    first: int
    shape: tuple[int, ...]
    axis: int | None


@dataclass(frozen=True)
class Counted(Op):
    """An operator that finds entries: int64 [...], its parts, then how many entries count.

    Attributes:
        bound: entries that there is room for; of more, the first ones are kept.
    """

    bound: int

    def parts(self, inputs: Sequence[TensorType]) -> tuple[Part, ...]:
        """What its result consists of."""
        raise NotImplementedError(type(self).__name__)

    def count(self, found: Node) -> Node:
        """How many entries count in what was found: int64 [1]."""
        return count_of(found)


def part(found: Node, index: int, name: str = "", origin: str = "") -> Node:
    """A part of what a Counted found."""
    assert isinstance(found.op, Counted)
    wanted = found.op.parts([source.type for source in found.inputs])[index]
    entries = Slice.along(found.shape, 0, wanted.first, math.prod(wanted.shape))
    return make(Reshape(wanted.shape), make(entries, found), name=name, origin=origin)


def count_of(found: Node) -> Node:
    """How many entries a Counted found: int64 [1]."""
    return make(Slice.along(found.shape, 0, found.shape[0] - 1, 1), found)


@dataclass(frozen=True)
class Length:
    """An entry of a shape.

    Attributes:
        most: its value, or the bound of its value.
        count: int64 [1]: the value, where it depends on data.
    """

    most: int
    count: Node | None = None


@dataclass(frozen=True)
class Counts:
    """What an importer knows of tensors of open length.

    Attributes:
        bounds: what the user gives, by the name of the ONNX tensor.
        asked: names of the tensors that can have a bound.
    """

    bounds: Mapping[str, int] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    _known: dict[Node, Mapping[int, Node]] = field(default_factory=dict)
    _made: dict[tuple[Op, Node, int], Node] = field(default_factory=dict)

    def bound(self, name: str, most: int) -> int:
        """Entries to have room for, of at most so many.

        Raises:
            MdlcError: there may be too many, and the user gives no bound.
        """
        self.asked.add(name)
        given = self.bounds.get(name)
        if given is None and most > MOST_ENTRIES:
            raise MdlcError(f"{name!r} may have {most} entries",
                            hint=f"give a bound, as in --bound {name}=1000")  # fmt: skip
        return max(1, most if given is None else min(given, most))

    def of(self, node: Node) -> Mapping[int, Node]:
        """By axis, how many entries count, where not all do.

        Raises:
            MdlcError: an operator on the way mixes entries.
        """
        if not self.asked:
            return {}
        pending = [node]
        while pending:
            last = pending[-1]
            rest = [source for source in last.inputs if source not in self._known]
            if last in self._known or not rest:
                pending.pop()
                if last not in self._known:
                    self._known[last] = self._found(last)
            else:
                pending += rest
        return self._known[node]

    def closed(self, nodes: Sequence[Node], inputs: Sequence[Node | None]) -> list[Node]:
        """What one ONNX node became, from its inputs on, with fillings behind the entries that
        count that its operators take no notice of.
        """
        if not self.asked:
            return list(nodes)
        done = {node: node for node in inputs if node is not None}

        def visit(node: Node) -> Node:
            if node not in done:
                done[node] = self._closed(node.with_inputs(visit(each) for each in node.inputs))
            return done[node]

        return [visit(node) for node in nodes]

    def _closed(self, node: Node) -> Node:
        sources, types = list(node.inputs), [source.type for source in node.inputs]
        if _part_of(node) is not None:
            return node
        for index, source in enumerate(node.inputs):
            for axis, count in self.of(source).items():
                if node.op.follows(types, index, axis) is None:
                    value = node.op.ignores(types, index, axis)
                    if value is not None:
                        sources[index] = self._filled(sources[index], axis, count, value)
        return node.with_inputs(sources)

    def _filled(self, source: Node, axis: int, count: Node, value: float) -> Node:
        """The tensor with a value behind the entries that count along an axis."""
        shape = [1] * len(source.shape)
        shape[axis] = source.shape[axis]
        kind = source.type.dtype.numpy
        if source.type.dtype.is_float:
            fill = np.array(value, kind)
        else:
            most = (False, True) if kind.kind == "b" else (np.iinfo(kind).min, np.iinfo(kind).max)
            fill = np.array(min(max(value, most[0]), most[1])).astype(kind)
        behind = make(Less(), constant(np.arange(shape[axis]).reshape(shape)), count)
        filled = make(Where(), behind, source, constant(fill), name=source.name)
        others = {a: c for a, c in self.of(source).items() if a != axis}
        self._known[filled] = others
        return filled

    def whole(self, node: Node, axis: int) -> Node:
        """The tensor, to be read by an operator that itself heeds how many entries count."""
        found = make(Reshape(node.shape), node, name=node.name)
        self._known[found] = {a: count for a, count in self.of(node).items() if a != axis}
        return found

    def lengths(self, node: Node) -> list[Length] | None:
        """The entries of a vector of lengths, such as the target of a Reshape: whole numbers, and
        counts of tensors whose length depends on data. None where another entry is computed.
        """
        if node.constant is not None:
            return [Length(int(value)) for value in node.constant.reshape(-1)]
        most = bound_of(node)
        if most is not None:
            return [Length(most, node)]
        if node.shape in ((), (1,)) and node.type.dtype is DType.I64:
            bounds = value_bounds(node)
            if bounds is not None and bounds <= MOST_ENTRIES:  # such as the sum of a mask
                one = node if node.shape else make(Reshape((1,)), node)
                return [Length(max(1, int(bounds)), one)]
        found: list[Length] = []
        if isinstance(node.op, Concat):
            for source in node.inputs:
                each = self.lengths(source)
                if each is None:
                    return None
                found += each
            return found
        if isinstance(node.op, Cast | Reshape) and node.type.size == 1:
            return self.lengths(node.inputs[0])
        if isinstance(node.op, Slice) and len(node.shape) == 1:
            each = self.lengths(node.inputs[0])
            start, step = node.op.starts[0], node.op.steps[0]
            return each and [each[start + i * step] for i in range(node.op.lengths[0])]
        if isinstance(node.op, Gather) and node.op.axis == 0:
            each, places = self.lengths(node.inputs[0]), node.inputs[1].constant
            return None if places is None or not each else [each[i] for i in places.reshape(-1)]
        return None

    def check_asked(self) -> None:
        """Raises MdlcError for a bound that no tensor has asked for."""
        for name in self.bounds:
            if name not in self.asked:
                known = ", ".join(sorted(self.asked)) or "none"
                raise MdlcError(
                    f"{name!r} is no tensor whose length depends on data",
                    node="--bound",
                    hint=f"those of this model are: {known}",
                )

    def counted(self, graph: Graph) -> Graph:
        """The graph with one more output for each whose length depends on data: its count.

        Raises:
            MdlcError: an output has two such axes, or entries were mixed on the way to it.
        """
        outputs, names, counts = list(graph.outputs), list(graph.output_names), []
        for name, node in zip(graph.output_names, graph.outputs, strict=True):
            found = self.of(node)
            if len(found) > 1:
                raise MdlcError(
                    f"its lengths along axes {list(found)} depend on data",
                    node=f"output {name!r}",
                    hint="cut the model before it",
                )
            for axis, count in found.items():
                own = f"{name}_count"
                while own in names:
                    own += "_"
                counts.append(Count(name, axis, own))
                names.append(own)
                outputs.append(replace(count, name=own))
        return replace(
            graph, outputs=tuple(outputs), output_names=tuple(names), counts=tuple(counts)
        )

    def _found(self, node: Node) -> Mapping[int, Node]:
        made = _part_of(node)
        if made is not None:
            return made
        found: dict[int, Node] = {}
        types = [source.type for source in node.inputs]
        for index, source in enumerate(node.inputs):
            for axis, count in self._known[source].items():
                at = node.op.follows(types, index, axis)
                if at is None and (merged := node.op.merges(types, index, axis)) is not None:
                    at, times = merged
                    count = self._of_count(Mul(), count, times)
                elif at is None:
                    raise _mixed(node, source, axis, "mixes the entries of")
                elif node.shape[at] < source.shape[axis]:
                    count = self._of_count(Min(), count, node.shape[at])
                if not _same(found.setdefault(at, count), count):
                    raise _mixed(node, source, axis, "combines two lists, one of them")
        return found

    def _of_count(self, op: Op, count: Node, number: int) -> Node:
        """A count by a number: one node, however often it is asked for.

        Args:
            op: Mul, where each entry became `number` of them; Min, where the first ones are left.
        """
        key = op, count, number
        if key not in self._made:
            self._made[key] = make(op, count, constant(np.array([number], np.int64)))
        return self._made[key]


def _same(a: Node, b: Node) -> bool:
    """Whether two counts are one."""
    return a is b or (a.op == b.op and a.inputs == b.inputs)


def value_bounds(node: Node) -> float | None:
    """How large a number may become at most; None where it could be negative, or is unknown."""
    source = node
    while isinstance(source.op, Reshape | Cast) and source.type.dtype is not DType.BOOL:
        source = source.inputs[0]
    if not (isinstance(source.op, Reduce) and source.op.kind == "sum"):
        return 1.0 if source.type.dtype is DType.BOOL else None
    one = value_bounds(source.inputs[0])
    return None if one is None else one * source.inputs[0].type.size / source.type.size


def bound_of(node: Node) -> int | None:
    """The bound of a count; None for another node."""
    if isinstance(node.op, Mul | Min) and len(node.inputs) == 2 and node.shape == (1,):
        most, number = bound_of(node.inputs[0]), node.inputs[1].constant
        if most is None or number is None:
            return None
        value = int(number.reshape(-1)[0])
        return most * value if isinstance(node.op, Mul) else min(most, value)
    found = node.inputs[0] if isinstance(node.op, Slice) else None
    if found is None or not isinstance(found.op, Counted):
        return None
    assert isinstance(node.op, Slice)
    last = node.shape == (1,) and node.op.starts[0] == found.shape[0] - 1
    return found.op.bound if last else None


def _mixed(node: Node, source: Node, axis: int, does: str) -> MdlcError:
    what = f"{type(node.op).__name__} {does} {source.name!r}"
    return MdlcError(f"{what}, whose length along axis {axis} depends on data", hint=CUT)


def _part_of(node: Node) -> Mapping[int, Node] | None:
    """What counts of a part of a Counted; None for another node."""
    inner = node.inputs[0] if isinstance(node.op, Reshape) else None
    if inner is None or not isinstance(inner.op, Slice) or inner.constant is not None:
        return None
    found = inner.inputs[0]
    if not isinstance(found.op, Counted):
        return None
    for each in found.op.parts([source.type for source in found.inputs]):
        if (each.first, each.shape) == (inner.op.starts[0], node.shape):
            return {} if each.axis is None else {each.axis: found.op.count(found)}
    return None
