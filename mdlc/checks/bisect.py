"""Bisection: the pass, and in it the rewrite, that moves a network beyond its bound.

Two programs are asked. The graphs that passes leave, in double precision: every tensor of theirs
must be the model's. Then, where those are right, the emitted class of each, as `verify` judges it:
a right rewrite may show a kernel that is wrong.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mdlc.checks.changed import changed_tensors
from mdlc.checks.integer_verification import computes_in_bytes, integer_layers
from mdlc.checks.rounding import unit
from mdlc.checks.verification import OTHERS, verify
from mdlc.codegen.target import target_of
from mdlc.compiler.interpreter import evaluate
from mdlc.compiler.ir import Graph
from mdlc.compiler.rewrite import Budget, Event
from mdlc.compiler.types import Array
from mdlc.inputs.preprocess import preprocess
from mdlc.passes.layout import assign_layout
from mdlc.passes.pipeline import GraphPass
from mdlc.pipeline import FUSE_ROWS, LOSSY, NEEDED, passes_of

if TYPE_CHECKING:
    from mdlc.api import CompiledModel

# What is wrong with a graph, in words; "" for nothing.
Judged = Callable[[Graph], str]


@dataclass(frozen=True)
class Culprit:
    """What does harm.

    Attributes:
        name: the pass; number: which of the passes that ran it is, from 1.
        fault: what is wrong behind it. emitted: whether only the emitted class shows it.
        rewrite: the number of the rewrite in the pass, from 1; None where it is not one of many.
        event: the rule that fired, and where.
    """

    name: str
    number: int
    fault: str
    emitted: bool = False
    rewrite: int | None = None
    event: Event | None = None


def bisect(
    network: Graph, passes: Sequence[GraphPass], fault_of: Judged, *, emitted: bool = False
) -> Culprit | None:
    """The first pass, and in it the first rewrite, behind which a network is at fault.

    None where it is right behind all of them. Behind a pass that does harm all graphs are taken
    to be wrong, so that few are looked at.

    Args:
        emitted: what the culprit says of itself.
    """
    graphs = [network]
    for each in passes:
        graphs.append(each(graphs[-1]))
    fault = fault_of(graphs[-1])
    if not fault:
        return None
    faults = {len(passes): fault}

    def wrong(count: int) -> bool:
        if count not in faults:
            faults[count] = fault_of(graphs[count])
        return bool(faults[count])

    number = _first(len(passes), wrong)
    if not number:
        return Culprit("import", 0, faults[0], emitted)
    found, before = passes[number - 1], graphs[number - 1]
    culprit = Culprit(found.__name__, number, faults[number], emitted)
    if "budget" not in inspect.signature(found).parameters:
        return culprit
    every = Budget(traced=True)
    found(before, budget=every)
    fired = [event for event in every.events if event.fired]
    rewrite = _first(
        len(fired), lambda count: count > 0 and bool(fault_of(found(before, budget=Budget(count))))
    )
    return replace(culprit, rewrite=rewrite, event=fired[rewrite - 1])


def _first(last: int, wrong: Callable[[int], bool]) -> int:
    """The least number for which it is wrong; it is for `last`."""
    if last == 0 or wrong(0):
        return 0
    good, bad = 0, last
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (good, middle) if wrong(middle) else (middle, bad)
    return bad


def find_culprit(compiled: CompiledModel, inputs: Mapping[str, Array]) -> Culprit | None:
    """What moves a compiled network beyond its bound on these inputs; None where nothing does.

    Raises:
        MdlcError: the class cannot be built or run here, or ONNX Runtime does not take the model.
    """
    network = preprocess(compiled.imported, compiled.how)
    target = target_of(compiled.plan)
    passes = passes_of(unpacks=target.unpacks, attends=target.attends, without=compiled.without)
    found = _by_graphs(network, passes, inputs)
    return found or _by_classes(compiled, network, passes, inputs)


def _by_graphs(
    network: Graph, passes: Sequence[GraphPass], inputs: Mapping[str, Array]
) -> Culprit | None:
    """Between passes that round by design, the graph behind one is what the next must keep."""
    start = 0
    cuts = [i + 1 for i, each in enumerate(passes) if each.__name__ in LOSSY]
    for end in (*cuts, len(passes)):
        part = [each for each in passes[start:end] if each.__name__ not in LOSSY]
        culprit = bisect(network, part, keeps_tensors(network, inputs))
        if culprit is not None:
            return replace(culprit, number=culprit.number + start)
        for each in passes[start:end]:
            network = each(network)
        start = end
    return None


def keeps_tensors(model: Graph, inputs: Mapping[str, Array]) -> Judged:
    """Judges whether a graph computes the model's tensors, in double precision."""
    zeros = {n.name: np.zeros(n.shape, n.type.dtype.numpy) for n in model.inputs}
    values = {**zeros, **inputs}
    exact = evaluate(model, values, double=True)

    def fault_of(graph: Graph) -> str:
        worst = max(
            changed_tensors(model, exact, graph, values, lambda n: OTHERS * unit(n.type.dtype)),
            key=lambda each: each.excess,
            default=None,
        )
        if worst is None:
            return ""
        return (
            f"tensor {worst.node.name!r} differs by {worst.relative:.3g} of its largest value, "
            f"{worst.excess:.3g} times what rounding explains"
        )

    return fault_of


def _by_classes(
    compiled: CompiledModel,
    network: Graph,
    passes: Sequence[GraphPass],
    inputs: Mapping[str, Array],
) -> Culprit | None:
    target = target_of(compiled.plan)
    # Kernels read what it leaves, so it stands behind any number of the others.
    passes = [each for each in passes if each is not assign_layout]

    def fault_of(graph: Graph, *, by_rows: bool = False) -> str:
        for each in NEEDED:
            graph = each(graph)
        kept = {} if by_rows or not target.sized else {"row_groups": ()}
        plan = target.lower(
            graph, target.backend, compiled.name, tuned=compiled.tuned,
            threads=compiled.plan.threads, **kept,
        )  # fmt: skip
        return class_fault(replace(compiled, graph=plan.graph, plan=plan), inputs)

    culprit = bisect(network, passes, fault_of, emitted=True)
    if culprit is not None or FUSE_ROWS in compiled.without:
        return culprit
    final = network
    for each in passes:
        final = each(final)
    fault = fault_of(final, by_rows=True)
    return Culprit(FUSE_ROWS, len(passes) + 1, fault, emitted=True) if fault else None


def class_fault(compiled: CompiledModel, inputs: Mapping[str, Array]) -> str:
    """What is wrong with an emitted class on these inputs: the first layer that is off, or ""."""
    if computes_in_bytes(compiled):
        integers = integer_layers(compiled, [inputs]).first_off
        if integers is None:
            return ""
        return f"layer {integers.step!r} differs from the reference in {integers.differing} places"
    found = verify(compiled, [inputs]).first_off
    return "" if found is None else f"layer {found.step!r} is off: {found.fault}"
