"""Control flow of ONNX whose course is known: branches taken, loops unrolled."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import onnx

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node, make
from mdlc.compiler.onnx_load import EXPORT_AGAIN, describe, subgraph_nodes
from mdlc.compiler.onnx_node import needs_known
from mdlc.compiler.onnx_rename import renamed_graph
from mdlc.compiler.onnx_tensors import attributes_of
from mdlc.compiler.ops.concat import Concat
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.slice import Slice
from mdlc.compiler.ops.where import Where
from mdlc.compiler.types import Array

# What a name stands for during import: a tensor, or the tensors of a sequence.
Value: TypeAlias = "Node | tuple[Node, ...]"

# Nodes that the loops of a model may become.
MOST_UNROLLED_NODES = 200_000


class Scope(Protocol):
    """What imports a body."""

    def body(self, graph: onnx.GraphProto, values: Mapping[str, Value]) -> list[Value]:
        """The outputs of a subgraph among the tensors around it."""

    def fold(self, node: Node) -> Node:
        """A node that was made here, evaluated where its inputs are constants."""


@dataclass(frozen=True)
class ControlNode:
    """A node with subgraphs, its inputs imported.

    Attributes:
        values: all tensors that its subgraphs may read.
        opset: version of the operator set.
        folder: where external data lies, if there is a folder.
    """

    proto: onnx.NodeProto
    inputs: Sequence[Value | None]
    values: Mapping[str, Value]
    scope: Scope
    opset: int
    folder: Path | None = None

    @property
    def attributes(self) -> dict[str, Any]:
        """As Python values; subgraphs stay protos."""
        return attributes_of(self.proto, self.folder, describe(self.proto))

    def error(self, reason: str, hint: str = EXPORT_AGAIN) -> MdlcError:
        """An error about this node, to raise."""
        return MdlcError(reason, node=describe(self.proto), hint=hint)

    def graph(self, name: str) -> onnx.GraphProto:
        """A subgraph."""
        found = self.attributes.get(name)
        if not isinstance(found, onnx.GraphProto):
            raise self.error(f"its {name} is missing")
        return found

    def tensor(self, index: int) -> Node:
        """Input `index`, a tensor."""
        found = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(found, Node):
            raise self.error(f"input {index} is not a tensor")
        return found

    def known(self, index: int) -> Array | None:
        """The value of an input that is a constant; None where it is absent.

        Raises:
            MdlcError: it is computed at run time.
        """
        if index >= len(self.inputs) or self.inputs[index] is None:
            return None
        value = self.tensor(index).constant
        if value is None:
            what = "its trip count" if index == 0 else "its condition"
            raise needs_known(
                describe(self.proto),
                f"{what} is computed at run time",
                (self.tensor(index),),
                "export the model without control flow",
            )
        return value

    def check_trips(self, graph: onnx.GraphProto, trips: int) -> None:
        """Raises MdlcError where unrolling makes too much of a loop."""
        count = trips * max(1, len(subgraph_nodes(graph.node)))
        if count > MOST_UNROLLED_NODES:
            raise self.error(f"its {trips} iterations would become {count} nodes",
                             f"at most {MOST_UNROLLED_NODES} are unrolled")  # fmt: skip

    def iteration(self, graph: onnx.GraphProto, number: int, given: Sequence[Value]) -> list[Value]:
        """The outputs of one pass through a loop's body."""
        if len(given) != len(graph.input):
            raise self.error(f"its body takes {len(graph.input)} inputs, not {len(given)}")
        stem = next(filter(None, self.proto.output), self.proto.op_type)
        body = renamed_graph(graph, {}, f"{stem}/{number}/")
        values = dict(self.values)
        values.update((i.name, v) for i, v in zip(body.input, given, strict=True))
        del body.input[:]
        return self.scope.body(body, values)


def branch(n: ControlNode) -> list[Value]:
    """If: the branch that is taken where the condition is known; else both, and a choice."""
    condition = n.tensor(0)
    if condition.type.size != 1:
        raise n.error(f"its condition is {condition.type}, not one value")
    bodies = [n.graph(name) for name in ("then_branch", "else_branch")]
    if any(len(body.output) != len(n.proto.output) for body in bodies):
        raise n.error("its branches are malformed")
    known = condition.constant
    if known is not None:
        return n.scope.body(bodies[0 if bool(known.reshape(-1)[0]) else 1], n.values)
    return [
        _chosen(n, condition, *both)
        for both in zip(*(n.scope.body(body, n.values) for body in bodies), strict=True)
    ]


def _chosen(n: ControlNode, condition: Node, yes: Value, no: Value) -> Node:
    """One of two tensors, both computed: operators have no side effects."""
    if not (isinstance(yes, Node) and isinstance(no, Node) and yes.type == no.type):
        raise n.error(
            "its condition is computed at run time, and its branches give different types",
            "fix the input or the dimensions that the condition depends on, with --shape or --fix",
        )
    shape = () if condition.shape == () else (1,) * max(1, len(yes.shape))
    flag = condition if shape == condition.shape else make(Reshape(shape), condition)
    return make(Where(), flag, yes, no)


def loop(n: ControlNode) -> list[Value]:
    """Loop: M and the condition are constants, as often as not computed by the body itself."""
    body = n.graph("body")
    count, condition = n.known(0), n.known(1)
    state = [value for value in n.inputs[2:] if value is not None]
    if len(state) != len(n.inputs[2:]) or len(body.output) < 1 + len(state):
        raise n.error("its body does not fit its inputs")
    trips = math.inf if count is None else int(count.reshape(-1)[0])
    running = condition is None or bool(condition.reshape(-1)[0])
    collected: list[list[Node]] = [[] for _ in body.output[1 + len(state) :]]
    number = 0
    while running and number < trips:
        n.check_trips(body, number + 1 if count is None else int(trips))
        given = [constant(np.array(number, np.int64)), constant(np.array(True)), *state]
        after, *results = n.iteration(body, number, given)
        state = results[: len(state)]
        for values, result in zip(collected, results[len(state) :], strict=True):
            if not isinstance(result, Node):
                raise n.error("it collects a sequence")
            values.append(result)
        if not isinstance(after, Node) or after.constant is None:
            raise n.error("its condition is computed at run time",
                          "export the loop with a fixed number of iterations")  # fmt: skip
        running = bool(after.constant.reshape(-1)[0])
        number += 1
    return [*state, *(_stacked(n, values, 0) for values in collected)]


def scan(n: ControlNode) -> list[Value]:
    """Scan: as many iterations as the scanned axis is long."""
    if n.opset < 9:
        return _batched_scan(n)
    return list(_scan(n, [n.tensor(i) for i in range(len(n.inputs))]))


def _batched_scan(n: ControlNode) -> list[Value]:
    """Operator set 8: an optional input with lengths, and a batch in front of everything."""
    if n.inputs and n.inputs[0] is not None:
        raise n.error("sequence lengths are not supported", "export with operator set 9 or newer")
    inputs = [n.tensor(i) for i in range(1, len(n.inputs))]
    batch = inputs[0].shape[0] if inputs and inputs[0].shape else 0
    if any(not i.shape or i.shape[0] != batch for i in inputs):
        raise n.error("its inputs have no common batch")
    found = [_scan(n, [_taken(n, i, 0, b) for i in inputs]) for b in range(batch)]
    return [_stacked(n, values, 0) for values in zip(*found, strict=True)]


def _scan(n: ControlNode, inputs: Sequence[Node]) -> list[Node]:
    body, given = n.graph("body"), n.attributes
    scanned = int(given.get("num_scan_inputs", 0))
    if not 0 < scanned <= len(inputs) or len(body.output) < len(inputs) - scanned:
        raise n.error("its body does not fit its inputs")
    state: list[Value] = list(inputs[: len(inputs) - scanned])
    sources = inputs[len(inputs) - scanned :]
    outputs = len(body.output) - len(state)
    axes = [int(a) for a in given.get("scan_input_axes", [0] * scanned)]
    backwards = given.get("scan_input_directions", given.get("directions", [0] * scanned))
    axes_out = [int(a) for a in given.get("scan_output_axes", [0] * outputs)]
    prepends = given.get("scan_output_directions", [0] * outputs)
    listed = (axes, backwards, axes_out, prepends)
    if [len(values) for values in listed] != [scanned, scanned, outputs, outputs]:
        raise n.error("its axes and directions do not fit its inputs")
    if any(not -len(s.shape) <= a < len(s.shape) for s, a in zip(sources, axes, strict=True)):
        raise n.error("it scans an axis that its input does not have")
    lengths = {s.shape[a] for s, a in zip(sources, axes, strict=True)}
    if len(lengths) != 1:
        raise n.error(f"its inputs are {sorted(lengths)} long")
    trips = lengths.pop()
    n.check_trips(body, trips)
    collected: list[list[Node]] = [[] for _ in range(outputs)]
    for number in range(trips):
        slices = [
            _taken(n, source, axis, trips - 1 - number if back else number)
            for source, axis, back in zip(sources, axes, backwards, strict=True)
        ]
        results = n.iteration(body, number, [*state, *slices])
        state = results[: len(state)]
        for values, result in zip(collected, results[len(state) :], strict=True):
            if not isinstance(result, Node):
                raise n.error("it collects a sequence")
            values.append(result)
    stacked = [
        _stacked(n, values[::-1] if prepend else values, axis)
        for values, axis, prepend in zip(collected, axes_out, prepends, strict=True)
    ]
    return [value for value in (*state, *stacked) if isinstance(value, Node)]


def _taken(n: ControlNode, x: Node, axis: int, index: int) -> Node:
    """x at one index of an axis, without the axis."""
    axis %= len(x.shape)
    part = n.scope.fold(make(Slice.along(x.shape, axis, index, 1), x, name=x.name))
    kept = tuple(d for a, d in enumerate(x.shape) if a != axis)
    return n.scope.fold(make(Reshape(kept), part, name=x.name))


def _stacked(n: ControlNode, values: Sequence[Node], axis: int) -> Node:
    """Tensors one behind the other on a new axis."""
    if not values:
        raise n.error("it has no iterations, and so an output without elements")
    return stack(values, axis, n.scope.fold)


def stack(values: Sequence[Node], axis: int, fold: Callable[[Node], Node]) -> Node:
    """Tensors of one shape one behind the other on a new axis."""
    rank = len(values[0].shape) + 1
    axis %= rank
    parts = []
    for value in values:
        shape = (*value.shape[:axis], 1, *value.shape[axis:])
        parts.append(fold(make(Reshape(shape), value, name=value.name)))
    return parts[0] if len(parts) == 1 else fold(make(Concat(axis), *parts))


CONTROL: Mapping[str, Callable[[ControlNode], list[Value]]] = {
    "If": branch,
    "Loop": loop,
    "Scan": scan,
}
