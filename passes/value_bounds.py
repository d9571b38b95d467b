"""How large the values of a network's tensors may become, channel by channel.

What operators answer (`Op.value_bounds`, compiler/values.py), carried through a graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.values import Values, of_constant


@dataclass(frozen=True)
class Peak:
    """The largest magnitudes that a node computes with, its sums and its result.

    Attributes:
        proven: for any input; likely: counted with. See compiler/values.py.
    """

    proven: float
    likely: float


def value_bounds(graph: Graph, inputs: Mapping[str, Values] | None = None) -> dict[Node, Peak]:
    """The peaks of all float nodes.

    Args:
        inputs: what is known of the inputs, by name; of bytes all is.
    """
    known = inputs or {}
    found: dict[Node, Values] = {}
    peaks: dict[Node, Peak] = {}
    with np.errstate(all="ignore"):
        for node in graph.order():
            if node.constant is not None:
                found[node] = of_constant(node.constant)
                continue
            if not node.inputs and node.name in known:
                made = known[node.name]
            else:
                made = node.op.value_bounds(node, [found[source] for source in node.inputs])
            found[node] = made
            if node.type.dtype.is_float:
                every = (made, *made.sums)
                peaks[node] = Peak(
                    max(float(each.most.max()) for each in every),
                    max(each.likely for each in every),
                )
    return peaks
