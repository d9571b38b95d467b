"""Which of a model's tensors a graph made of it computes otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from mdlc.checks.compare import relative_error
from mdlc.checks.local import Local, last_of_name
from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.ops.quantize_linear import QuantizeLinear, along
from mdlc.compiler.types import Array

# Nearer to the middle of two integers than this, either may be meant.
TIE = 1e-3


@dataclass(frozen=True)
class Changed:
    """A tensor that is further from the model's than rounding explains.

    Attributes:
        node: of the graph. excess: in parts of what is allowed; relative: to the largest value.
    """

    node: Node
    excess: float
    relative: float


def changed_tensors(
    model: Graph,
    exact: Mapping[Node, Array],
    graph: Graph,
    inputs: Mapping[str, Array],
    unit: Callable[[Node], float],
    wanted: Callable[[Node], bool] = lambda node: True,
) -> Iterator[Changed]:
    """The tensors of `graph` that are none of the model's, each judged on the model's exact ones.

    Args:
        exact: the model's values in double precision.
        unit: of rounding, of a node of the graph.
        wanted: the nodes that are judged.
    """
    named = last_of_name(model)
    expected = {name: exact[node] for name, node in named.items()}
    given = {
        node: expected[node.name]
        for node in last_of_name(graph).values()
        if node.name in expected
        and expected[node.name].shape == node.shape
        and expected[node.name].dtype.kind == node.type.dtype.numpy.kind
    }
    local = Local(graph, inputs, given, unit)
    for node in given:
        if not wanted(node):
            continue
        value = given[node]
        excess, changed = local.judge(node, value, tie=_near_tie(named[node.name], exact))
        if excess > 1:
            yield Changed(node, excess, relative_error(changed.astype(value.dtype), value))


def _near_tie(node: Node, exact: Mapping[Node, Array]) -> Array | None:
    """Where what the model rounds to integers lies between two: means of a few often do."""
    if not isinstance(node.op, QuantizeLinear):
        return None
    x, scale, _ = node.inputs
    steps = exact[x] / along(exact[scale], x.shape, node.op.axis, node.op.block)
    return np.asarray(np.abs(np.abs(steps - np.floor(steps)) - 0.5) < TIE)
