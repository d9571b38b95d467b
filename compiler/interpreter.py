"""The reference interpreter: runs a graph in numpy, on logical arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.ops.input import Input
from mdlc.compiler.types import Array


def evaluate(
    graph: Graph,
    inputs: Mapping[str, Array],
    *,
    given: Mapping[Node, Array] | None = None,
    double: bool = False,
) -> dict[Node, Array]:
    """The value of every node, keyed by node.

    Args:
        inputs: logical arrays by the names of the graph's inputs.
        given: what nodes read instead of what some others are here: outputs of another program,
            so that its layers are judged one by one. The result has the values computed here.
        double: compute in double precision whatever floating type the tensors have.

    Raises:
        MdlcError: an input is missing or has the wrong shape.
    """
    values: dict[Node, Array] = {}
    read: dict[Node, Array] = {}
    for node in graph.order():
        if isinstance(node.op, Input):
            value = input_value(node, inputs)
        else:
            value = node.op.reference(*(read[source] for source in node.inputs))
        values[node] = widened(value) if double else value
        read[node] = values[node]
        if given is not None and node in given:
            read[node] = widened(given[node]) if double else given[node]
    return values


def input_value(node: Node, inputs: Mapping[str, Array]) -> Array:
    """The value of an input node among those by name.

    Raises:
        MdlcError: it is missing or has the wrong shape.
    """
    if node.name not in inputs:
        raise MdlcError(f"no value for input {node.name!r}")
    value = inputs[node.name]
    if value.shape != node.shape:
        raise MdlcError(
            f"input {node.name!r} has shape {list(value.shape)}, not {list(node.shape)}"
        )
    return value.astype(node.type.dtype.numpy, copy=False)


def widened(value: Array) -> Array:
    """Floats in double precision; everything else as it is."""
    return value.astype(np.float64, copy=False) if value.dtype.kind == "f" else value


def run(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The values of the graph's outputs by name."""
    values = evaluate(graph, inputs)
    return {
        name: values[node] for name, node in zip(graph.output_names, graph.outputs, strict=True)
    }
