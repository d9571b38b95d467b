"""The IR: immutable nodes and graphs.

A Node stands for its one output; ONNX operators with several outputs become several nodes. A
Graph is its inputs and outputs; order and users are computed, never stored, so an old graph
stays valid beside the one that a pass made from it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.types import Array, TensorType

if TYPE_CHECKING:
    from mdlc.compiler.op import Op


@dataclass(frozen=True, eq=False)
class Node:
    """An operator applied to inputs.

    Attributes:
        name: the ONNX tensor whose value it has; provenance only.
        origin: the ONNX node whose work it does (its name, or that of its first output). With
            epilogues fused the value is the activation's, and the work still the convolution's.
    """

    op: Op
    inputs: tuple[Node, ...]
    type: TensorType
    name: str = ""
    origin: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """The logical shape of the output."""
        return self.type.shape

    @property
    def constant(self) -> Array | None:
        """The value, where the node is a constant."""
        from mdlc.compiler.ops.constant import Constant

        return self.op.value if isinstance(self.op, Constant) else None

    def with_inputs(self, inputs: Iterable[Node]) -> Node:
        """The same operator on other inputs, its type inferred anew (the layout is kept)."""
        inputs = tuple(inputs)
        if inputs == self.inputs:
            return self
        return make(self.op, *inputs, name=self.name, origin=self.origin, layout_of=self)

    def __repr__(self) -> str:
        return f"<{type(self.op).__name__} {self.name or hex(id(self))}: {self.type}>"


def make(
    op: Op, *inputs: Node, name: str = "", origin: str = "", layout_of: Node | None = None
) -> Node:
    """A node with its type inferred.

    Args:
        layout_of: take over this node's layout, where the rank allows it.

    Raises:
        MdlcError: the operator rejects the types of its inputs.
    """
    try:
        inferred = op.infer(*(node.type for node in inputs))
    except MdlcError as error:
        raise MdlcError(error.reason, node=error.node or name or None, hint=error.hint) from error
    if layout_of is not None and layout_of.type.rank == inferred.rank:
        inferred = inferred.with_layout(layout_of.type.layout)
    return Node(op, inputs, inferred, name, origin)


def ancestors(nodes: Iterable[Node]) -> list[Node]:
    """Nodes and all that they are computed from, each once."""
    pending = list(nodes)
    seen = dict.fromkeys(pending)
    while pending:
        for source in pending.pop().inputs:
            if source not in seen:
                seen[source] = None
                pending.append(source)
    return list(seen)


@dataclass(frozen=True)
class Count:
    """That only some entries of an output count: as many as another output says.

    Attributes:
        output: name of the one; axis: along which.
        name: of the other, int64 [1].
    """

    output: str
    axis: int
    name: str

    def cut(self, results: Mapping[str, Array]) -> Array:
        """The entries that count, of results by name."""
        count = int(np.asarray(results[self.name]).reshape(-1)[0])
        value = results[self.output]
        return value[(slice(None),) * self.axis + (slice(count),)]


@dataclass(frozen=True, eq=False)
class Graph:
    """A network: its inputs (Input nodes) and its outputs with their ONNX names.

    Attributes:
        states: pairs of an output's and an input's name: what the output is after one inference,
            the input is in the next.
        counts: of a graph as imported, outputs whose length depends on data.
    """

    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    output_names: tuple[str, ...]
    name: str = "model"
    states: tuple[tuple[str, str], ...] = ()
    counts: tuple[Count, ...] = ()

    @property
    def arguments(self) -> tuple[Node, ...]:
        """The inputs that a caller gives: those that are no state."""
        kept = {source for _, source in self.states}
        return tuple(node for node in self.inputs if node.name not in kept)

    @property
    def state_pairs(self) -> tuple[tuple[Node, Node], ...]:
        """For every state, the node of its output and the Input node."""
        made = dict(zip(self.output_names, self.outputs, strict=True))
        read = {node.name: node for node in self.inputs}
        return tuple((made[target], read[source]) for target, source in self.states)

    def with_states(self, states: Mapping[str, str]) -> Graph:
        """The same network with inputs that are kept from one inference to the next.

        Args:
            states: the input's name by that of the output which it becomes.

        Raises:
            MdlcError: there is no such output or input, an input is named twice, the types of the
                two differ, or no output is left.
        """
        made = dict(zip(self.output_names, self.outputs, strict=True))
        read = {node.name: node for node in self.inputs}
        for target, source in states.items():
            for name, known, kind in ((target, made, "output"), (source, read, "input")):
                if name not in known:
                    listed = ", ".join(map(repr, known)) or "none"
                    raise MdlcError(f"the model has no {kind} {name!r}", node="--state",
                                    hint=f"its {kind}s are {listed}")  # fmt: skip
            if made[target].type != read[source].type:
                raise MdlcError(
                    f"output {target!r} is {made[target].type}, "
                    f"but input {source!r} is {read[source].type}",
                    node="--state",
                    hint="a state needs an output and an input of one shape and type",
                )
        twice = [name for name, count in Counter(states.values()).items() if count > 1]
        if twice:
            raise MdlcError(f"names the input {twice[0]!r} twice", node="--state",
                            hint="give every input one output")  # fmt: skip
        if states and len(states) == len(made):
            raise MdlcError("leaves no output", node="--state",
                            hint="keep an output that is no state")  # fmt: skip
        return replace(self, states=tuple(states.items()))

    def _dag(self) -> nx.DiGraph:
        """Edges from a node to its inputs, inserted breadth first from the outputs."""
        dag = nx.DiGraph()
        pending = [*self.outputs]
        dag.add_nodes_from(pending)
        seen = set(pending)
        while pending:
            node = pending.pop()
            for source in node.inputs:
                dag.add_edge(node, source)
                if source not in seen:
                    seen.add(source)
                    pending.append(source)
        return dag

    def order(self) -> list[Node]:
        """All nodes that an output needs, and all inputs, each after what it reads."""
        dag = self._dag()
        reached: list[Node] = []
        seen: set[Node] = set()
        for root in (*self.inputs, *self.outputs):
            if root in seen:
                continue
            if root not in dag:
                dag.add_node(root)
            for node in nx.dfs_postorder_nodes(dag, root):
                if node not in seen:
                    seen.add(node)
                    reached.append(node)
        return reached

    def users(self) -> dict[Node, list[Node]]:
        """For every node, the nodes that read it (twice where they read it twice)."""
        users: dict[Node, list[Node]] = {node: [] for node in self.order()}
        for node in users:
            for source in node.inputs:
                users[source].append(node)
        return users

    def with_outputs(self, outputs: Iterable[Node]) -> Graph:
        """The same network with other output nodes under the same names."""
        return replace(self, outputs=tuple(outputs))

    def cut(self, results: Mapping[str, Array]) -> dict[str, Array]:
        """Results by name, without the entries that do not count."""
        shorter = {each.output: each.cut(results) for each in self.counts if each.output in results}
        return {**results, **shorter}

    def rebuild(self, visit: Callable[[Node, Node], Node]) -> Graph:
        """A new graph, made in order from the inputs on.

        Args:
            visit: called with each old node and that node on its new inputs; returns what
                stands for it from here on (often just the second argument).
        """
        done: dict[Node, Node] = {}
        for node in self.order():
            done[node] = visit(node, node.with_inputs(done[source] for source in node.inputs))
        return replace(
            self,
            inputs=tuple(done[node] for node in self.inputs),
            outputs=tuple(done[node] for node in self.outputs),
        )

    def __iter__(self) -> Iterator[Node]:
        return iter(self.order())
