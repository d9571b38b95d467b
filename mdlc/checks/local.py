"""A graph computed operator by operator, each on what another program gave it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from mdlc.checks.rounding import (
    SMALLEST,
    Computed,
    computed,
    excess,
    excess_of,
    moved,
    tolerance,
)
from mdlc.codegen.kernel import NO_LOSS, Loss
from mdlc.compiler.interpreter import input_value, widened
from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.ops.input import Input
from mdlc.compiler.types import Array

# What is computed on one thread here: threads of OpenBLAS wait in busy loops, and where another
# program has a core, products of a few milliseconds took ten times as long on two threads.
BLAS = "blas"


def last_of_name(graph: Graph) -> dict[str, Node]:
    """The node that stands for each tensor: the last of those made for one ONNX operator."""
    return {node.name: node for node in graph.order() if node.name and node.constant is None}


class Local:
    """Every node judged by its exact value for what it read, and how far rounding may be from it.

    A node whose output the other program did not show is computed from what it read in turn;
    what rounding may have cost there is carried along. Nothing else is kept: the exact value of
    a node is there while it is judged.
    """

    def __init__(
        self,
        graph: Graph,
        inputs: Mapping[str, Array],
        given: Mapping[Node, Array],
        unit: Callable[[Node], float],
        loss: Callable[[Node], Loss] = lambda node: NO_LOSS,
    ) -> None:
        """Args:
        given: the other program's values.
        unit: of rounding, of a node; loss: what its algorithm loses besides (see `Computed`).
        """
        self.given = given
        self._unit, self._loss = unit, loss
        self._slack: dict[Node, Array | None] = {}
        # In order of computation, so that however long a chain is, nothing recurs.
        self._values: dict[Node, Array] = {}
        for node in graph.order():
            if isinstance(node.op, Input):
                self._values[node] = input_value(node, inputs)
            elif node.constant is not None:
                self._values[node] = node.constant
            elif node not in given:
                self._values[node] = self.exact(node)

    def read(self, node: Node) -> Array:
        """What the users of a node read."""
        return widened(self.given[node] if node in self.given else self._values[node])

    def exact(self, node: Node) -> Array:
        """The value of a node for what it read, in double precision."""
        if node in self._values:
            return widened(self._values[node])
        return widened(np.asarray(node.op.reference(*map(self.read, node.inputs))))

    def slack(self, node: Node) -> Array | None:
        """How far off what is read of a node may be; None where it is what it is."""
        if node not in self._slack:
            self._slack[node] = self._slack_of(node)
        return self._slack[node]

    def _slack_of(self, node: Node) -> Array | None:
        exact = node in self.given or not node.inputs or isinstance(node.op, Input)
        if exact or self._values[node].dtype.kind != "f":
            return None
        if moved(node) and all(self.slack(source) is None for source in node.inputs):
            return None
        return tolerance(self._computed(node))

    def _computed(self, node: Node) -> Computed:
        return computed(
            node,
            [self.read(source) for source in node.inputs],
            [self.slack(source) for source in node.inputs],
            u=self._unit(node),
            loss=self._loss(node),
        )

    def judge(
        self, node: Node, found: Array, floor: float = 0.0, tie: Array | None = None
    ) -> tuple[float, Array]:
        """The largest difference of a node's output in parts of what is allowed; the exact value.

        Args:
            floor: allowed besides, whatever the value.
            tie: where integers may be one step off.
        """
        if not node.inputs:
            value = self.exact(node)
            return excess(found, value, SMALLEST + 2 * self._unit(node) * np.abs(value)), value
        made = self._computed(node)
        if tie is not None and made.exact.dtype.kind in "iu":
            step = np.clip(found.astype(np.int64) - made.exact, -1, 1)
            found = np.where(tie, found - step, found)
        return excess_of(made, found, floor), made.exact

    def figures(self, node: Node, found: Array) -> tuple[float, float, float]:
        """The largest error of a node's output, the largest bound of any element, and the largest
        error in parts of its bound; infinite or NaN where an element is."""
        if not node.inputs:
            exact = self.exact(node)
            allowed = SMALLEST + 2 * self._unit(node) * np.abs(exact)
        else:
            made = self._computed(node)
            exact = made.exact
            floats = exact.dtype.kind == "f"
            allowed = tolerance(made) if floats else np.zeros(exact.shape)
        with np.errstate(all="ignore"):
            apart = np.abs(found.astype(np.float64) - exact.astype(np.float64))
        same = (found == exact) | ((found != found) & (exact != exact))
        apart = np.where(same, 0.0, apart)
        share = excess(found, exact, allowed if exact.dtype.kind == "f" else None)
        return float(np.max(apart, initial=0.0)), float(np.max(allowed, initial=0.0)), share
