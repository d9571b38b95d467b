"""Faults put into a layer, to see whether `verify` finds them there.

The reference interpreter in single precision plays the emitted class: a thousand faults cost no
run of a C++ compiler. benchmarks/injected_faults.py tries as many as one likes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mdlc.api import CompiledModel
from mdlc.checks.verification import Run
from mdlc.compiler.interpreter import evaluate
from mdlc.compiler.ir import Node
from mdlc.compiler.types import Array

# Of a layer's largest value: what a fault changes at least; others are no faults that matter.
VISIBLE = 1e-5
KINDS = ("weight", "bias", "tap", "epilogue")


@dataclass(frozen=True)
class Fault:
    """What was changed.

    Attributes:
        node: the layer. kind: one of KINDS.
        step: where it is to be found: the layer, or the last of the row-fused group it is in.
        value: what the layer computes with it, in single precision.
    """

    node: Node
    kind: str
    step: str
    value: Array


def played(compiled: CompiledModel, inputs: Mapping[str, Array], fault: Fault | None = None) -> Run:
    """What a class would have computed, with a fault in one layer."""
    wrong = {} if fault is None else {fault.node: fault.value}
    values = evaluate(compiled.graph, inputs, given=wrong) | wrong
    hidden = compiled.plan.hidden
    traced = {s.name: values[s.node] for s in compiled.plan.steps if s.name not in hidden}
    graph = compiled.graph
    results = {n: values[o] for n, o in zip(graph.output_names, graph.outputs, strict=True)}
    return Run(inputs, traced, results)


def drawn(
    compiled: CompiledModel, values: Mapping[Node, Array], generator: np.random.Generator
) -> Fault:
    """A fault in any layer with weights.

    Args:
        values: of all nodes, in single precision.
    """
    steps = compiled.plan.steps
    last = {s.name: s.name for s in steps}
    for group in compiled.plan.row_groups:
        last |= {steps[i].name: steps[group.indices[-1]].name for i in group.indices}
    layers = [s for s in steps if len(s.node.inputs) > 2 and s.node.inputs[1].constant is not None
              and s.node.inputs[1].type.rank in (2, 4)]  # fmt: skip
    while True:
        step = layers[generator.integers(len(layers))]
        kind = str(generator.choice(KINDS))
        wrong = _wrong(step.node, kind, values, generator)
        if wrong is None:
            continue
        seen = values[compiled_step(steps, last[step.name])]
        right = values[step.node]
        apart = np.abs(wrong - right).max()
        if apart > VISIBLE * np.abs(right).max() and seen.size:
            return Fault(step.node, kind, last[step.name], wrong)


def compiled_step(steps: Any, name: str) -> Node:
    """The node of a step."""
    return next(step.node for step in steps if step.name == name)  # type: ignore[no-any-return]


def _wrong(
    node: Node, kind: str, values: Mapping[Node, Array], generator: np.random.Generator
) -> Array | None:
    op: Any = node.op
    operands = [values[source] for source in node.inputs]
    weights, bias = operands[1].copy(), operands[2].copy()
    if kind == "epilogue":
        if getattr(op, "activation", None) is None:
            return None
        op = replace(op, activation=None)
        operands = [*operands[:3], *operands[3 + node.op.has_slope :]]  # type: ignore[attr-defined]
    elif kind == "bias":
        bias.reshape(-1)[generator.integers(bias.size)] = 0
    elif kind == "weight":
        weights.reshape(-1)[generator.integers(weights.size)] *= -1
    else:
        one = weights[generator.integers(len(weights))]
        one[(slice(None), *(generator.integers(n) for n in one.shape[1:]))] = 0
    result: Array = op.reference(operands[0], weights, bias, *operands[3:])
    return result
