"""Memory layouts for the whole graph with the fewest bytes moved, as a minimum cut.

Every rank-4 tensor lies on one of two sides: NHWC (the source's) or plain (the sink's).
Operators pin tensors to a side or tie them together; an edge between a tensor and those who
read it in the other layout costs the bytes of one conversion, however many read it.
"""

from __future__ import annotations

from dataclasses import replace

import networkx as nx
import numpy as np

from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.op import LayoutRule
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.convert_layout import ConvertLayout
from mdlc.compiler.ops.dense import Dense
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.transpose import Transpose
from mdlc.compiler.rewrite import Budget, Const, Decline, Match, Rule, Var, pat, rewrite
from mdlc.compiler.types import Layout, TensorType

TO_CHANNELS_LAST = (0, 2, 3, 1)
TO_CHANNELS_FIRST = (0, 3, 1, 2)

# What an operator wants of an input or its output: a layout, that of its output ("same"), or
# nothing.
Want = Layout | str | None


def _wants_output(node: Node) -> Want:
    if node.type.rank != 4:
        return None
    if isinstance(node.op, Transpose):
        first = node.op.perm == TO_CHANNELS_FIRST
        return Layout.NHWC if first else Layout.PLAIN
    rule = node.op.layout_rule
    if rule is LayoutRule.NATIVE:
        return Layout.NHWC
    if rule is LayoutRule.BARRIER and node.inputs:
        return Layout.PLAIN
    return None


def _wants_input(node: Node, index: int) -> Want:
    source = node.inputs[index]
    if source.type.rank != 4 or source.constant is not None:
        return None
    if isinstance(node.op, Transpose):
        # From NHWC to channels last, and from plain to channels first, no byte moves.
        return Layout.NHWC if node.op.perm == TO_CHANNELS_LAST else Layout.PLAIN
    rule = node.op.layout_rule
    if rule is LayoutRule.NATIVE:
        return Layout.NHWC
    if rule is LayoutRule.FOLLOWS:
        return "same" if node.type.rank == 4 else None
    return Layout.PLAIN


def _conversion_bytes(tensor: TensorType) -> int:
    """Bytes that a conversion moves: none where both layouts are the same in memory."""
    channels, pixels = tensor.shape[1], tensor.shape[2] * tensor.shape[3]
    return 0 if channels == 1 or pixels == 1 else tensor.nbytes


def choose_layouts(graph: Graph) -> dict[Node, Layout]:
    """The layout of every rank-4 tensor that is no constant."""
    order = [n for n in graph.order() if n.type.rank == 4 and n.constant is None]
    cut = nx.DiGraph()
    number = {node: index for index, node in enumerate(order)}
    # Side names: "nhwc" is the source, "plain" the sink; missing capacities are infinite.
    cut.add_nodes_from(["nhwc", "plain", *number.values()])
    readers: dict[Node, list[object]] = {node: [] for node in order}
    for node in graph.order():
        want = _wants_output(node)
        if node in number and want is Layout.NHWC:
            cut.add_edge("nhwc", number[node])
        elif node in number and want is Layout.PLAIN:
            cut.add_edge(number[node], "plain")
        for index, source in enumerate(node.inputs):
            wanted = _wants_input(node, index)
            if wanted is not None and source in number:
                side = number[node] if wanted == "same" else wanted.value  # type: ignore[union-attr]
                readers[source].append(side)
    for target, source in graph.state_pairs:  # one memory
        if source in number:
            side = number.get(target, "plain")
            cut.add_edge(number[source], side)
            cut.add_edge(side, number[source])
    for source, sides in readers.items():
        cost = _conversion_bytes(source.type)
        if not cost or not sides:
            continue
        to_plain, to_nhwc = ("to plain", number[source]), ("to nhwc", number[source])
        cut.add_edge(number[source], to_plain, capacity=cost)
        cut.add_edge(to_nhwc, number[source], capacity=cost)
        for side in sides:
            cut.add_edge(to_plain, side)
            cut.add_edge(side, to_nhwc)
    _, (_, plain) = nx.minimum_cut(cut, "nhwc", "plain")
    return {node: Layout.PLAIN if i in plain else Layout.NHWC for node, i in number.items()}


def assign_layout(graph: Graph) -> Graph:
    """Gives every tensor its layout and inserts ConvertLayout where a reader needs the other."""
    layouts = choose_layouts(graph)
    converted: dict[tuple[Node, Layout], Node] = {}

    def convert(node: Node, layout: Layout) -> Node:
        if node.type.layout is layout:
            return node
        key = node, layout
        if key not in converted:
            converted[key] = make(ConvertLayout(layout), node, name=node.name)
        return converted[key]

    def visit(old: Node, fresh: Node) -> Node:
        layout = layouts.get(old, Layout.PLAIN)
        inputs = []
        for index, source in enumerate(fresh.inputs):
            wanted = _wants_input(old, index)
            if wanted == "same":
                wanted = layout
            if isinstance(wanted, Layout) and not isinstance(old.op, Transpose):
                source = convert(source, wanted)
            inputs.append(source)
        return replace(fresh, inputs=tuple(inputs), type=fresh.type.with_layout(layout))

    return graph.rebuild(visit)


def _flatten(m: Match) -> Node | Decline:
    """Flattened pixels of NHWC come in another order: so do the columns of the weights."""
    x, reshape = m["x"], m["reshape"]
    if x.type.rank != 4 or not _conversion_bytes(x.type):
        return Decline("memory order does not matter")
    if reshape.shape != (x.shape[0], x.type.size // x.shape[0]):
        return Decline("more than a flattening")
    if x.op.layout_rule is LayoutRule.BARRIER:
        return Decline("the tensor is not in NHWC")
    weights = m.value("w")
    columns = weights.reshape(-1, *x.shape[1:]).transpose(TO_CHANNELS_LAST)
    moved = constant(np.ascontiguousarray(columns).reshape(weights.shape), m["w"].name)
    rows = make(Reshape(reshape.shape), make(Transpose(TO_CHANNELS_LAST), x))
    return make(m.root.op, rows, moved, *m.root.inputs[2:])


FLATTEN = Rule(
    "flatten_channels_last",
    pat(Dense, pat(Reshape, Var("x"), bind="reshape"), Const("w"), ...),
    _flatten,
)


def flatten_channels_last(graph: Graph, *, budget: Budget | None = None) -> Graph:
    """Lets a Dense behind a flattening read NHWC: its weights are permuted instead."""
    return rewrite(graph, (FLATTEN,), budget)
