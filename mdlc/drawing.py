"""A graph as a picture: an SVG in which data flows from top to bottom."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import networkx as nx

from mdlc.codegen.templates import render
from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.words import byte_count, in_words

BOX_WIDTH, BOX_HEIGHT = 240, 64
_LETTERS, _SMALL = 36, 44  # of a line in bold, and of one in small letters
GAP_X, GAP_Y, MARGIN = 40, 34, 30


@dataclass(frozen=True)
class Box:
    """A layer as drawn: the corner, four lines of text (escaped), and what a pointer shows.

    Attributes:
        title: the operator with its filter and stride; detail: element type and shape.
        memory: bytes of the output and of the parameters.
    """

    x: int
    y: int
    title: str
    detail: str
    memory: str
    name: str
    tip: str
    fill: str


Corner = tuple[int, int]
Layout = Callable[[nx.DiGraph], tuple[dict[Node, Corner], dict[tuple[Node, Node], list[Corner]]]]


def svg(graph: Graph, layout: Layout | None = None) -> str:
    """The picture; constants are not drawn.

    Args:
        layout: gives the boxes' corners and the points that edges go through, in pixels; None:
            rows by longest path, with neither.
    """
    flow = nx.DiGraph()
    order = [node for node in graph.order() if node.constant is None]
    flow.add_nodes_from(order)
    flow.add_edges_from(
        (source, node) for node in order for source in node.inputs if source.constant is None
    )
    if layout is not None:
        return _laid_out(graph.name, flow, *layout(flow))
    column, row = _places(flow)
    columns = max((max(c, 0) for c in column.values()), default=0) + 1
    rows = max(row.values(), default=0) + 1
    # Edges that skip rows bow out: to the left of the first column, to the right of others.
    bow = _bow(max((row[b] - row[a] for a, b in flow.edges), default=1))
    left = MARGIN + bow
    corner = {
        node: (left + column[node] * (BOX_WIDTH + GAP_X), MARGIN + row[node] * _PITCH)
        for node in order
    }
    boxes = [_box(node, *corner[node]) for node in order]
    paths = [
        _edge(corner[a], corner[b], row[b] - row[a], column[a] == column[b] == 0)
        for a, b in flow.edges
    ]
    return render(
        "svg/graph.j2",
        width=left + columns * (BOX_WIDTH + GAP_X) + bow + MARGIN,
        height=2 * MARGIN + rows * _PITCH,
        title=html.escape(graph.name),
        boxes=boxes,
        paths=paths,
        box_width=BOX_WIDTH,
        box_height=BOX_HEIGHT,
    )


def _laid_out(
    name: str,
    flow: nx.DiGraph,
    corner: Mapping[Node, Corner],
    through: Mapping[tuple[Node, Node], Sequence[Corner]],
) -> str:
    """The picture at given places."""
    left = min((x for x, _ in corner.values()), default=0) - MARGIN
    top = min((y for _, y in corner.values()), default=0) - MARGIN
    at = {node: (x - left, y - top) for node, (x, y) in corner.items()}
    paths = []
    for a, b in flow.edges:
        start = (at[a][0] + BOX_WIDTH // 2, at[a][1] + BOX_HEIGHT)
        end = (at[b][0] + BOX_WIDTH // 2, at[b][1])
        points = [start, *((x - left, y - top) for x, y in through.get((a, b), ())), end]
        parts = [f"M{start[0]} {start[1]}"]
        for (x0, y0), (x1, y1) in pairwise(points):
            middle = (y0 + y1) // 2
            parts.append(f"C{x0} {middle} {x1} {middle} {x1} {y1}")
        paths.append("".join(parts))
    return render(
        "svg/graph.j2",
        width=max((x for x, _ in at.values()), default=0) + BOX_WIDTH + MARGIN,
        height=max((y for _, y in at.values()), default=0) + BOX_HEIGHT + MARGIN,
        title=html.escape(name),
        boxes=[_box(node, *at[node]) for node in flow.nodes],
        paths=paths,
        box_width=BOX_WIDTH,
        box_height=BOX_HEIGHT,
    )


_PITCH = BOX_HEIGHT + GAP_Y


def _places(flow: nx.DiGraph) -> tuple[dict[Node, int], dict[Node, int]]:
    """Column and row of every node: rows by longest path, columns near those of the sources."""
    column: dict[Node, int] = {}
    row: dict[Node, int] = {}
    for number, generation in enumerate(nx.topological_generations(flow)):
        taken: set[int] = set()

        def wish(node: Node) -> int:
            return min((column[source] for source in flow.predecessors(node)), default=0)

        for node in sorted(generation, key=wish):
            place = wish(node)
            while place in taken:
                place += 1
            taken.add(place)
            column[node], row[node] = place, number
    return column, row


def _bow(rows: int) -> int:
    """How far an edge over so many rows swings out."""
    return 30 + 12 * min(rows, 12) if rows > 1 else 0


def _edge(start: tuple[int, int], end: tuple[int, int], rows: int, first: bool) -> str:
    """An SVG path from the bottom of one box to the top of another, or round what is between.

    Args:
        rows: how many rows down it goes; first: whether both are in the first column.
    """
    if rows <= 1:
        x0, y0 = start[0] + BOX_WIDTH // 2, start[1] + BOX_HEIGHT
        x1, y1 = end[0] + BOX_WIDTH // 2, end[1]
        middle = (y0 + y1) // 2
        return f"M{x0} {y0}C{x0} {middle} {x1} {middle} {x1} {y1}"
    y0, y1 = start[1] + BOX_HEIGHT // 2, end[1] + BOX_HEIGHT // 2
    if first:
        x0, x1 = start[0], end[0]
        side = x0 - _bow(rows)
    else:
        x0, x1 = start[0] + BOX_WIDTH, end[0] + BOX_WIDTH
        side = max(x0, x1) + _bow(rows)
    return f"M{x0} {y0}C{side} {y0} {side} {y1} {x1} {y1}"


def _box(node: Node, x: int, y: int) -> Box:
    kind = type(node.op).__name__
    title = operator_text(node)
    tip = f"{node.op}\n{node.name}: {node.type}"
    parameters = sum(s.type.nbytes for s in node.inputs if s.constant is not None)
    memory = byte_count(node.type.nbytes)
    if parameters:
        memory += f", parameters {byte_count(parameters)}"
    return Box(
        x,
        y,
        html.escape(title if len(title) <= _LETTERS else f"{title[: _LETTERS - 1]}…"),
        html.escape(str(node.type)),
        html.escape(memory),
        html.escape(node.name if len(node.name) <= _SMALL else f"…{node.name[1 - _SMALL :]}"),
        html.escape(tip),
        _colour(kind),
    )


def operator_text(node: Node) -> str:
    """An operator with the size of its filter, its stride and what else is not as usual."""
    filters = next((s.shape for s in node.inputs[1:2] if s.constant is not None), ())
    size = "x".join(map(str, filters[2:])) if "Conv" in type(node.op).__name__ else ""
    return in_words(node.op, size)


def _colour(kind: str) -> str:
    """A pale colour, the same for an operator everywhere."""
    hue = int(hashlib.sha256(kind.encode()).hexdigest()[:4], 16) % 360
    return f"hsl({hue},55%,90%)"
