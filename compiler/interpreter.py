"""The reference interpreter: runs a graph in numpy, on logical arrays."""

from __future__ import annotations

from collections.abc import Mapping

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.ops.input import Input
from mdlc.compiler.types import Array


def evaluate(graph: Graph, inputs: Mapping[str, Array]) -> dict[Node, Array]:
    """The value of every node, keyed by node.

    Args:
        inputs: logical arrays by the names of the graph's inputs.

    Raises:
        MdlcError: an input is missing or has the wrong shape.
    """
    values: dict[Node, Array] = {}
    for node in graph.order():
        if isinstance(node.op, Input):
            if node.name not in inputs:
                raise MdlcError(f"no value for input {node.name!r}")
            value = inputs[node.name]
            if value.shape != node.shape:
                raise MdlcError(
                    f"input {node.name!r} has shape {list(value.shape)}, not {list(node.shape)}"
                )
            values[node] = value.astype(node.type.dtype.numpy, copy=False)
        else:
            values[node] = node.op.reference(*(values[source] for source in node.inputs))
    return values


def run(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The values of the graph's outputs by name."""
    values = evaluate(graph, inputs)
    return {
        name: values[node] for name, node in zip(graph.output_names, graph.outputs, strict=True)
    }
