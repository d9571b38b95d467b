"""Where the boxes of a graph stand in a report: in layers, with few crossings.

Source: K. Sugiyama et al., "Methods for visual understanding of hierarchical system structures"
(1981), as the library grandalf has it.
"""

from __future__ import annotations

import networkx as nx

from mdlc.compiler.ir import Node
from mdlc.drawing import BOX_HEIGHT, BOX_WIDTH, GAP_X, GAP_Y, Corner


class _View:
    """The size of a box, and its centre once it is placed."""

    w, h = BOX_WIDTH, BOX_HEIGHT
    xy = (0.0, 0.0)


def layered(
    flow: nx.DiGraph,
) -> tuple[dict[Node, Corner], dict[tuple[Node, Node], list[Corner]]]:
    """Corners of the boxes, and the points between layers that long edges go through.

    Parts of the graph that nothing connects stand side by side.
    """
    from grandalf.graphs import Edge, Graph, Vertex
    from grandalf.layouts import SugiyamaLayout

    vertices = {node: Vertex(node) for node in flow.nodes}
    for vertex in vertices.values():
        vertex.view = _View()
    edges = [Edge(vertices[a], vertices[b]) for a, b in flow.edges]
    corner: dict[Node, Corner] = {}
    through: dict[tuple[Node, Node], list[Corner]] = {}
    start = 0.0
    for part in Graph(list(vertices.values()), edges).C:
        layout = SugiyamaLayout(part)
        layout.xspace, layout.yspace = GAP_X, GAP_Y
        roots = [vertex for vertex in part.sV if not vertex.e_in()]
        layout.init_all(roots=roots, inverted_edges=[], optimize=True)
        layout.draw(3)
        centres = {v: v.view.xy for v in part.sV}
        left = min(x for x, _ in centres.values()) - BOX_WIDTH / 2 - start
        for vertex, (x, y) in centres.items():
            corner[vertex.data] = round(x - left - BOX_WIDTH / 2), round(y - BOX_HEIGHT / 2)
        for edge in part.sE:
            dummies = layout.ctrls.get(edge, {})
            inner = [dummies[rank].view.xy for rank in sorted(dummies)[1:-1]]
            points = [(round(x - left), round(y)) for x, y in inner]
            through[edge.v[0].data, edge.v[1].data] = points
        start = max(x for x, _ in corner.values()) + BOX_WIDTH + GAP_X
    return corner, through
