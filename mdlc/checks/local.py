"""A graph computed operator by operator, each on what another program gave it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from mdlc.checks.rounding import excess, moved, tolerance
from mdlc.compiler.interpreter import evaluate, widened
from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.ops.input import Input
from mdlc.compiler.types import Array


def last_of_name(graph: Graph) -> dict[str, Node]:
    """The node that stands for each tensor: the last of those made for one ONNX operator."""
    return {node.name: node for node in graph.order() if node.name and node.constant is None}


class Local:
    """Every node's exact value for what it read, and how far rounding may be from that.

    A node whose output the other program did not show is computed from what it read in turn;
    what rounding may have cost there is carried along.
    """

    def __init__(
        self,
        graph: Graph,
        inputs: Mapping[str, Array],
        given: Mapping[Node, Array],
        unit: Callable[[Node], float],
        loss: Callable[[Node], float] = lambda node: 0.0,
    ) -> None:
        """Args:
        given: the other program's values.
        unit: of rounding, of a node; loss: what its algorithm loses besides (see `tolerance`).
        """
        self.values = evaluate(graph, inputs, given=given, double=True)
        self.given = given
        self._unit, self._loss = unit, loss
        self._slack: dict[Node, Array | None] = {}

    def read(self, node: Node) -> Array:
        """What the users of a node read."""
        return widened(self.given[node]) if node in self.given else self.values[node]

    def slack(self, node: Node) -> Array | None:
        """How far off what is read of a node may be; None where it is what it is."""
        if node not in self._slack:
            self._slack[node] = self._slack_of(node)
        return self._slack[node]

    def _slack_of(self, node: Node) -> Array | None:
        exact = node in self.given or not node.inputs or isinstance(node.op, Input)
        if exact or self.values[node].dtype.kind != "f":
            return None
        if moved(node) and all(self.slack(source) is None for source in node.inputs):
            return None
        return self.allowed(node)

    def allowed(self, node: Node) -> Array:
        """How far from its value a node's floats may be."""
        return tolerance(
            node,
            [self.read(source) for source in node.inputs],
            [self.slack(source) for source in node.inputs],
            self.values[node],
            u=self._unit(node),
            loss=self._loss(node),
        )

    def excess(self, node: Node, found: Array, floor: float = 0.0) -> float:
        """The largest difference of a node's output, in parts of what is allowed.

        Args:
            floor: allowed besides, whatever the value.
        """
        exact = self.values[node]
        if exact.dtype.kind != "f":
            return excess(found, exact, None)
        # Most operators are within a unit or two: no need to ask how far they may be.
        near = 2 * self._unit(node) * np.abs(exact) + floor
        with np.errstate(all="ignore"):
            if bool((np.abs(found - exact) <= near).all()):
                return 0.0
        return excess(found, exact, self.allowed(node) + floor)
