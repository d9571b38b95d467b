"""A graph as a picture: an SVG in which data flows from top to bottom."""

from __future__ import annotations

import hashlib
import html
from dataclasses import dataclass

import networkx as nx

from mdlc.codegen.templates import render
from mdlc.compiler.ir import Graph, Node

BOX_WIDTH, BOX_HEIGHT = 220, 50
GAP_X, GAP_Y, MARGIN = 40, 34, 30


@dataclass(frozen=True)
class Box:
    """A layer as drawn: the corner, three lines of text (escaped), and what a pointer shows."""

    x: int
    y: int
    title: str
    detail: str
    name: str
    tip: str
    fill: str


def svg(graph: Graph) -> str:
    """The picture; constants are not drawn."""
    flow = nx.DiGraph()
    order = [node for node in graph.order() if node.constant is None]
    flow.add_nodes_from(order)
    flow.add_edges_from(
        (source, node) for node in order for source in node.inputs if source.constant is None
    )
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
    shown = node.name if len(node.name) <= 38 else f"...{node.name[-35:]}"
    tip = f"{node.op}\n{node.name}: {node.type}"
    return Box(
        x,
        y,
        html.escape(kind),
        html.escape(str(node.type)),
        html.escape(shown),
        html.escape(tip),
        _colour(kind),
    )


def _colour(kind: str) -> str:
    """A pale colour, the same for an operator everywhere."""
    hue = int(hashlib.sha256(kind.encode()).hexdigest()[:4], 16) % 360
    return f"hsl({hue},55%,90%)"
