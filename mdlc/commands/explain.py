"""mdlc explain: why a layer is computed the way it is."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from mdlc.api import CompiledModel
from mdlc.codegen.kernel import candidates
from mdlc.codegen.plan.choice import sharing
from mdlc.codegen.plan.plan import Plan
from mdlc.codegen.plan.sizes import size_text
from mdlc.codegen.target import target_of
from mdlc.commands.console import byte_count, count
from mdlc.commands.options import GroupedCommand, Job, takes_model
from mdlc.commands.tables import Column, Form, Sheet, number, prints_table
from mdlc.explanation import Explanation, Precision, explained

_SHOWN = 5


@click.command(
    "explain", cls=GroupedCommand, example="mdlc explain model.onnx -t arm-neon --layer conv1"
)
@takes_model()
@click.option(
    "--layer",
    "wanted",
    metavar="LAYER",
    help="Only this layer, by its name in the emitted class or in the model.",
)
@click.option("--all", "everything", is_flag=True, help="All candidates, not the best five.")
@prints_table()
def command(job: Job, wanted: str | None, everything: bool, form: Form) -> None:
    """Print the kernels and schedules that were candidates for each layer of MODEL.

    The cost is the estimated number of cycles on one core; the winner is marked. Where a table
    of `mdlc tune` decided, its figures stand beside the estimates.
    """
    compiled = job.compile()
    documents = []
    for each in compiled.by_target():
        if compiled.plans:
            form.line(f"target {each.plan.backend.name}:")
        layers = explained(each, wanted)
        _show(each, layers, everything or wanted is not None, form)
        documents.append(
            {"target": each.plan.backend.name, "layers": [asdict(layer) for layer in layers]}
        )
        for one in each.plan.also if wanted is None else ():
            for line in _sharing(each.plan, one):
                form.line(line)
    form.document(documents if compiled.plans else documents[0])


def _show(compiled: CompiledModel, layers: list[Explanation], everything: bool, form: Form) -> None:
    estimate = target_of(compiled.plan).estimate
    lines, totals = estimate(compiled.plan) if estimate else ({}, [])
    for layer in layers:
        form.line(f"{layer.name}: {layer.op} -> {layer.output}; chosen by {layer.chosen_by}")
        if layer.bands:
            form.line(f"  {layer.bands}")
        if layer.precision is not None:
            form.line(_in_words(layer.precision))
        form.show(
            sheet(layer, everything, form), target=compiled.plan.backend.name, layer=layer.name
        )
        if layer.name in lines:
            form.line(lines[layer.name])
    for total in totals:
        form.line(total)


def sheet(layer: Explanation, everything: bool, form: Form) -> Sheet:
    """The candidates as a table: the best few, and those that were measured."""
    columns: list[Column] = [
        Column("won", "", lambda won: "->" if won else ""),
        Column("kernel", "kernel", least=12),
        Column("schedule", "schedule", least=20),
        number("cycles", "cycles", count),
        number("macs_per_cycle", "MAC/cycle", lambda value: f"{value:.2f}", rank=1),
    ]
    if layer.metric is not None or not form.text:
        head = (layer.metric or "measured").split(" (")[0]
        columns.append(number("measured", head, lambda value: f"{value:.6g}"))
    rows: list[dict[str, Any]] = [
        {
            "won": way.won,
            "kernel": way.kernel,
            "schedule": way.schedule,
            "cycles": way.cycles,
            "macs_per_cycle": layer.macs / way.cycles if way.cycles else None,
            "measured": way.measured,
        }
        for index, way in enumerate(layer.ways)
        if everything or index < _SHOWN or way.measured is not None or way.won
    ]
    return Sheet(tuple(columns), rows)


def _in_words(found: Precision) -> str:
    if found.integer is None or found.in_float is None:
        return f"in {found.where}: {found.reason}"
    return (
        f"in {found.where}: {count(found.integer)} cycles in 8 bits, {count(found.in_float)} in "
        "float, transitions apart"
    )


def _sharing(first: Plan, other: Plan) -> list[str]:
    """Which layers of another size have the packed weights of the first, and why others do not."""
    known = {step.name for step in first.steps}
    packed = [step for step in other.steps if step.weights]
    own = [step for step in packed if step.name not in known]
    shared = len(packed) - len(own)
    lines = [
        f"size {size_text(other)}: {shared} of {len(packed)} layers with weights have those of "
        f"{size_text(first)}"
    ]
    by_node = {(step.node.name, type(step.node.op)): step for step in first.steps}
    for step in own:
        nbytes = byte_count(sum(array.nbytes for array in step.weights.values()))
        alike = by_node.get((step.node.name, type(step.node.op)))
        why = "no schedule packs them as they are there"
        found = candidates(step.node, other.backend)
        best = None if alike is None else sharing(step.node, found, alike, other.backend)
        if best is not None:
            saved = best.cycles - step.cycles(other.backend)
            why = f"{step.schedule} saves {count(saved)} of {count(best.cycles)} cycles"
        lines.append(f"  {step.name}: {nbytes} of its own, since {why}")
    return lines
