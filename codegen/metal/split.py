"""A network divided between GPU and processor: layers that Metal lacks go to a C++ class.

Layers are computed in stages, of which the even ones are the GPU's and the odd ones the
processor's; a layer's stage is the lowest that none of its inputs is behind. Each odd stage is a
network of its own, compiled as for any C++ target. Tensors that pass from one side to the other
lie in buffers that both reach, as the caller's inputs and outputs do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from mdlc.codegen.plan.plan import Plan, Port
from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.ops.constant import Constant
from mdlc.compiler.ops.input import Input
from mdlc.compiler.types import TensorType

# The texture of a tensor that only the processor touches.
NOWHERE = -1


def macs_of(node: Node) -> int:
    """Multiply-adds of a layer."""
    return node.op.cost([source.type for source in node.inputs], node.type).macs


@dataclass(frozen=True)
class CpuPart:
    """Layers that the processor computes.

    Attributes:
        name: the C++ class.
        graph: the layers; its inputs and outputs lie in buffers.
        inputs, outputs: numbers of those buffers.
        before: the step of the plan before which it is computed; the number of steps for the end.
        stage: its stage, which orders what is done before the same step.
    """

    name: str
    graph: Graph
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    before: int
    stage: int

    @property
    def layers(self) -> list[Node]:
        """The nodes that are computed, in order."""
        return [n for n in self.graph.order() if not isinstance(n.op, Input | Constant)]


@dataclass(frozen=True)
class Transfer:
    """A copy between a buffer, where elements lie as in a Mat, and a texture.

    Attributes:
        port: the texture.
        buffer: the buffer's number.
        before: the step before which it is done.
        stage: that of the layer that made the tensor; -1 for inputs of the network.
    """

    port: Port
    buffer: int
    before: int
    stage: int


@dataclass(frozen=True)
class MetalPlan(Plan):
    """A plan with what passes between memory and textures.

    Attributes:
        shared: types of the buffers: inputs of the network, its outputs, then what passes between
            GPU and processor.
        results: the buffer of every output.
        reads: buffers to textures; writes: textures to buffers.
        parts: what the processor computes; none without `--fallback cpu`.
        absorbed: layers that the kernels of others compute.
    """

    shared: tuple[TensorType, ...] = ()
    results: tuple[int, ...] = ()
    reads: tuple[Transfer, ...] = ()
    writes: tuple[Transfer, ...] = ()
    parts: tuple[CpuPart, ...] = ()
    absorbed: tuple[Node, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-adds of one inference on the GPU."""
        return super().macs + sum(macs_of(node) for node in self.absorbed)


@dataclass(frozen=True)
class Split:
    """A graph divided.

    Attributes:
        gpu: the layers of all even stages; its first inputs are those of the network that the GPU
            reads, its outputs what it makes for the caller and for the processor.
        stages: of the nodes of `gpu`.
        sources: the node of the whole graph that each input of `gpu` stands for.
        results: the node of the whole graph that each output of `gpu` stands for.
        parts: stage, graph, inputs and outputs (nodes of the whole graph) of each odd stage.
        whole: stages of the nodes of the whole graph.
    """

    gpu: Graph
    stages: Mapping[Node, int]
    whole: Mapping[Node, int]
    sources: tuple[Node, ...]
    results: tuple[Node, ...]
    parts: tuple[tuple[int, Graph, tuple[Node, ...], tuple[Node, ...]], ...]


def _computed(graph: Graph) -> list[Node]:
    outputs = set(graph.outputs)
    return [
        node
        for node in graph.order()
        if not isinstance(node.op, Input) and (node.constant is None or node in outputs)
    ]


def on_processor(
    graph: Graph, lacks: Callable[[Node], bool], moves: Callable[[Node], bool]
) -> set[Node]:
    """The nodes that the GPU does not compute.

    Args:
        lacks: whether the GPU cannot; moves: whether a node moves no bytes in the C++ class, so
            that it stays there between two nodes that are.
    """
    users = graph.users()
    found: set[Node] = set()
    nodes = _computed(graph)
    found.update(node for node in nodes if lacks(node))
    for node in reversed(nodes):
        around = [*node.inputs[:1], *users[node]]
        if moves(node) and users[node] and found.issuperset(around):
            found.add(node)
    return found


def stages_of(graph: Graph, processor: set[Node]) -> dict[Node, int]:
    """The stage of every node that is computed: even ones on the GPU."""
    stages: dict[Node, int] = {}
    for node in _computed(graph):
        lowest = max((stages[source] for source in node.inputs if source in stages), default=0)
        stages[node] = lowest + (lowest % 2 != (node in processor))
    return stages


def divide(graph: Graph, processor: set[Node]) -> Split:
    """The graph by stages.

    Args:
        processor: nodes that the GPU does not compute; not empty.
    """
    stages = stages_of(graph, processor)
    users = graph.users()
    final = set(graph.outputs)
    parts = []
    for stage in sorted({s for node, s in stages.items() if node in processor}):
        inside = [node for node in stages if node in processor and stages[node] == stage]
        made = tuple(
            node
            for node in inside
            if node in final or any(stages.get(user) != stage for user in users[node])
        )
        sources, part, _ = _cut(inside, made, graph.name)
        parts.append((stage, part, sources, made))
    inside = [node for node in stages if node not in processor]
    asked = {source for _, _, sources, _ in parts for source in sources}
    direct = [node for node in graph.inputs if node in final]
    made = (*direct, *(node for node in inside if node in final or node in asked))
    sources, gpu, copies = _cut(inside, made, graph.name, first=graph.inputs)
    return Split(
        gpu,
        {copies[node]: stages[node] for node in inside},
        stages,
        sources,
        made,
        tuple(parts),
    )


def _cut(
    inside: Sequence[Node], made: Sequence[Node], name: str, first: Sequence[Node] = ()
) -> tuple[tuple[Node, ...], Graph, dict[Node, Node]]:
    """Nodes as a graph of their own: what its inputs stand for, the graph, the copies of nodes.

    Args:
        first: nodes that are the first inputs where they are read.
    """
    copies: dict[Node, Node] = {}
    within = set(inside)
    outside = {source: None for node in inside for source in node.inputs
               if source not in within and source.constant is None}  # fmt: skip
    outside |= {node: None for node in made if node not in within}
    order = [node for node in first if node in outside]
    order += [node for node in outside if node not in order]
    names: dict[str, int] = {}
    for source in order:
        count = names[source.name] = names.get(source.name, 0) + 1
        label = source.name if count == 1 else f"{source.name}_{count}"
        copies[source] = Node(Input(source.shape, source.type.dtype), (), source.type, label)
    for node in inside:
        copies[node] = replace(
            node, inputs=tuple(copies.get(source, source) for source in node.inputs)
        )
    outputs = tuple(copies[node] for node in made)
    labels: dict[str, int] = {}
    given = []
    for node in made:
        count = labels[node.name] = labels.get(node.name, 0) + 1
        given.append(node.name if count == 1 else f"{node.name}_{count}")
    part = Graph(tuple(copies[source] for source in order), outputs, tuple(given), name)
    return tuple(order), part, copies
