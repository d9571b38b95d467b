"""Which layers are worth computing in integers: a minimum cut of estimated cycles.

Every layer is computed in integers or in float, and a tensor that is made on one side and read on
the other is converted once. What is cheapest for the whole network is a minimum cut, as with
memory layouts: a layer that gains little between two in float stays in float with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import networkx as nx

from mdlc.compiler.ir import Node
from mdlc.quantization.layers import Assignment, is_bytes, is_product

INTEGER, FLOAT = "integer", "float"


@dataclass(frozen=True)
class LayerCycles:
    """Estimated cycles of a layer in integers and in float, without transitions."""

    integer: float
    in_float: float


@dataclass(frozen=True)
class Placement:
    """What a minimum cut found.

    Attributes:
        in_float: layers, by the keys of tensors, that are cheaper in float.
        cycles: of every layer both ways.
        integer_total, float_total: cycles of the layers as placed, transitions included, and of
            all of them in float.
    """

    in_float: tuple[str, ...]
    cycles: Mapping[str, LayerCycles]
    integer_total: float
    float_total: float


def place(
    assignment: Assignment,
    cycles: Mapping[str, LayerCycles],
    transition: Callable[[Node], tuple[float, float]],
) -> Placement:
    """The cheapest way to divide the layers.

    Args:
        assignment: all layers that can be in integers being so.
        cycles: of layers by key; those that are missing cost nothing.
        transition: cycles to round a tensor to 8 bits, and to widen it.
    """
    keys = assignment.keys
    units = [
        node
        for node in assignment.graph.order()
        if node in assignment.integer and node not in assignment.inner
    ]
    cut = nx.DiGraph()
    cut.add_nodes_from([INTEGER, FLOAT])

    def pay(a: object, b: object, amount: float | None) -> None:
        """Adds to what it costs that a is in integers and b in float; None: that cannot be."""
        if amount is None:
            cut.add_edge(a, b)  # no capacity: infinite
        elif amount and not (cut.has_edge(a, b) and "capacity" not in cut[a][b]):
            before = cut[a][b]["capacity"] if cut.has_edge(a, b) else 0.0
            cut.add_edge(a, b, capacity=before + amount)

    readers = _readers(assignment, units)
    for node in units:
        found = cycles.get(keys[node], LayerCycles(0.0, 0.0))
        pay(INTEGER, node, found.in_float)
        pay(node, FLOAT, found.integer)
    for source, read in readers.items():
        rounding, widening = transition(source)
        inside = [node for node in read if node is not None]
        if source not in assignment.integer:
            if not is_bytes(source):
                pay(("rounded", source), FLOAT, rounding)
                for node in inside:
                    pay(node, ("rounded", source), None)
            continue
        pay(("rounded", source), source, rounding)
        pay(source, ("widened", source), widening)
        for node in inside:
            pay(node, ("rounded", source), None)
            pay(("widened", source), node, None)
            if not is_product(_core(node, assignment)):
                pay(node, source, None)  # computed in integers only if what it reads is there
        if len(inside) < len(read):
            pay(("widened", source), FLOAT, None)
    total, (kept, _) = nx.minimum_cut(cut, INTEGER, FLOAT)
    in_float = tuple(keys[node] for node in units if node not in kept)
    whole = sum(found.in_float for key, found in cycles.items() if key in set(keys.values()))
    return Placement(in_float, dict(cycles), float(total), whole)


def _core(node: Node, assignment: Assignment) -> Node:
    """The operator that a bound or a table stands behind."""
    while node.inputs and node.inputs[0] in assignment.inner:
        node = node.inputs[0]
    return node


def _readers(assignment: Assignment, units: list[Node]) -> dict[Node, list[Node | None]]:
    """The layers that read each tensor; None for a reader that is always in float."""
    whole = {}
    for unit in units:
        at = unit
        whole[at] = unit
        while at.inputs and at.inputs[0] in assignment.inner:
            at = at.inputs[0]
            whole[at] = unit
    found: dict[Node, list[Node | None]] = {}
    for node in assignment.graph.order():
        for source in node.inputs:
            if source.constant is not None or source in assignment.inner:
                continue
            if source in whole or node in whole:
                found.setdefault(source, []).append(whole.get(node))
    for node in assignment.graph.outputs:
        if node in whole:
            found.setdefault(node, []).append(None)
    return found
