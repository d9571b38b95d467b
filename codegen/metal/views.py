"""Which texture every tensor lies in, from which slice on, and whether it is one of floats.

What moves no bytes is a view: of a texture of its input, or for a concat's inputs of the concat's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mdlc.codegen.kernel import Candidate, View
from mdlc.codegen.metal.backend import Metal
from mdlc.codegen.metal.bounds import may_overflow
from mdlc.codegen.metal.image import LANES, Image
from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.ops.concat import Concat
from mdlc.compiler.ops.slice import Slice
from mdlc.compiler.types import DType


def assign_views(
    graph: Graph,
    order: Sequence[Node],
    choice: Mapping[Node, Candidate],
    aliases: set[Node],
    wide: set[Node],
    labels: Mapping[Node, str],
) -> tuple[dict[Node, View], list[tuple[str, View]]]:
    """A view for every node but the constants; name and whole view of every texture.

    Args:
        wide: nodes in textures of floats.
        labels: what textures are called after the nodes that are made in them.
    """
    inside = _inside_concats(order, graph.users(), choice)
    textures: list[tuple[str, View]] = []
    views: dict[Node, View] = {}

    def fresh(node: Node) -> View:
        view = View(len(textures), 0, node.type, Image.of(node.type).slices, node in wide)
        textures.append((labels[node], view))
        return view

    for node in order:
        if node in views:  # a concat whose texture was made for its first input
            continue
        if node in inside:
            concat, first = inside[node]
            if concat not in views:
                views[concat] = fresh(concat)
            views[node] = replace(views[concat], offset=first, type=node.type)
        elif node in choice:
            start = _slice_start(node)
            source = views.get(node.inputs[0]) if node.inputs else None
            if start is not None and source is not None:
                views[node] = replace(source, offset=source.offset + start, type=node.type)
            else:
                views[node] = fresh(node)
        elif node in aliases:
            views[node] = replace(views[node.inputs[0]], type=node.type)
        else:
            views[node] = fresh(node)
    return views, textures


def stored_in_float(order: Sequence[Node], metal: Metal) -> set[Node]:
    """Nodes that are stored in float: all that are no integers, or those that half cannot hold."""
    found: set[Node] = set()
    for node in order:
        kept = node.op.keeps_magnitude([source.type for source in node.inputs])
        carried = kept and not found.isdisjoint(node.inputs)
        every = metal.in_float and node.type.dtype in (DType.F32, DType.F16)
        if every or carried or may_overflow(node):
            found.add(node)
    return found


def _inside_concats(
    order: Sequence[Node], users: Mapping[Node, Sequence[Node]], choice: Mapping[Node, Candidate]
) -> dict[Node, tuple[Node, int]]:
    """Nodes that write straight into a concat's texture: the concat and the first slice.

    All inputs must be computed by steps of their own and, but for the last one, end on a slice.
    """
    inside: dict[Node, tuple[Node, int]] = {}
    for concat in order:
        if not isinstance(concat.op, Concat) or concat not in choice:
            continue
        sources = concat.inputs
        axis = concat.type.physical_axis(concat.op.axis)
        whole = axis == concat.type.rank - 1 and len(set(sources)) == len(sources)
        if not whole or any(
            source not in choice or source in inside or isinstance(source.op, Concat | Slice)
            for source in sources
        ):
            continue
        if any(source.shape[concat.op.axis] % LANES for source in sources[:-1]):
            continue
        first = 0
        for source in sources:
            inside[source] = (concat, first)
            first += -(-source.shape[concat.op.axis] // LANES)
    return inside


def _slice_start(node: Node) -> int | None:
    """The first slice of a Slice of channels that begins and ends on slices; else None."""
    if not isinstance(node.op, Slice):
        return None
    found = node.op.single_range(node.inputs[0].shape)
    if found is None:
        return None
    axis, start = found
    source = node.inputs[0].type
    if source.physical_axis(axis) != source.rank - 1 or start % LANES:
        return None
    end = start + node.shape[axis]
    return start // LANES if end % LANES == 0 or end == source.shape[axis] else None
