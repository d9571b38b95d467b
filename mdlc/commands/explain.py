"""mdlc explain: why a layer is computed the way it is."""

from __future__ import annotations

import click

from mdlc.api import CompiledModel
from mdlc.codegen.kernel import candidates
from mdlc.codegen.plan.choice import sharing
from mdlc.codegen.plan.plan import Plan
from mdlc.codegen.plan.sizes import size_text
from mdlc.codegen.target import target_of
from mdlc.commands.console import byte_count, count, out, table
from mdlc.commands.options import GroupedCommand, Job, takes_model
from mdlc.compiler.errors import MdlcError

_SHOWN = 5


@click.command("explain", cls=GroupedCommand)
@takes_model()
@click.option(
    "--layer",
    "wanted",
    metavar="LAYER",
    help="Only this layer, by its name in the emitted class or in the model.",
)
@click.option("--all", "everything", is_flag=True, help="All candidates, not the best five.")
def command(job: Job, wanted: str | None, everything: bool) -> None:
    """Print the kernels and schedules that were candidates for each layer of MODEL.

    The cost is the estimated number of cycles on one core; the winner is marked. Where a table
    of `mdlc tune` decided, its figures stand beside the estimates.
    """
    compiled = job.compile()
    for each in compiled.by_target():
        if compiled.plans:
            out().print(f"target {each.plan.backend.name}:")
        _explain(each, wanted, everything)


def _explain(compiled: CompiledModel, wanted: str | None, everything: bool) -> None:
    backend, tuned = compiled.plan.backend, compiled.tuned
    steps = [
        (number, step)
        for number, step in enumerate(compiled.plan.steps)
        if wanted is None or wanted in (step.name, step.node.name)
    ]
    if not steps and wanted is not None:
        some = ", ".join(step.name for step in compiled.plan.steps[:5])
        raise MdlcError(
            f"there is no layer {wanted!r}",
            node="--layer",
            hint=f"layers are {some}, ...; see `mdlc inspect`",
        )
    console = out()
    estimate = target_of(compiled.plan).estimate
    lines, totals = estimate(compiled.plan) if estimate else ({}, [])
    for index, step in steps:
        found = candidates(step.node, backend)
        entry = tuned.entry(step.node, found)
        costs = entry.costs if entry else {}
        source = f"{entry.source} ({entry.table.processor})" if entry else "the cost model"
        console.print(
            f"{step.name}: {step.node.op} -> {step.node.type}; chosen by {source}", soft_wrap=True
        )
        if banded := compiled.plan.bands(index):
            console.print(f"  {banded}", soft_wrap=True)
        if (precision := _precision(compiled, step.node.name)) is not None:
            console.print(precision)
        measured = (entry.table.metric,) if entry else ()
        figures = ("cycles", "MAC/cycle", *measured)
        shown = table("", "kernel", "schedule", *figures, right=figures)
        macs = step.node.op.cost([s.type for s in step.node.inputs], step.node.type).macs
        for number, candidate in enumerate(found):
            won = candidate.kernel is step.kernel and candidate.schedule == step.schedule
            cost = costs.get(str(candidate.schedule))
            if not (everything or wanted or number < _SHOWN or cost is not None):
                continue
            shown.add_row(
                "->" if won else "",
                candidate.kernel.name,
                str(candidate.schedule),
                count(candidate.cycles),
                f"{macs / candidate.cycles:.2f}" if candidate.cycles else "",
                *([] if entry is None else ["" if cost is None else f"{cost:.6g}"]),
            )
        console.print(shown)
        if step.name in lines:
            console.print(lines[step.name], soft_wrap=True)
    for one in compiled.plan.also if wanted is None else ():
        for line in _sharing(compiled.plan, one):
            console.print(line, soft_wrap=True)
    for total in totals:
        console.print(total, soft_wrap=True)


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


def _precision(compiled: CompiledModel, tensor: str) -> str | None:
    """Why a layer is in integers or in float, where that was decided by cost."""
    half = compiled.half_precision
    if half is not None and half.narrowed is not None:
        if tensor in half.narrowed.kept:
            return f"in float: {half.narrowed.kept[tensor]} do not fit half precision"
        if tensor in half.grounds:
            return f"in half precision: its range is {half.grounds[tensor]}"
    low = compiled.low_precision
    if low is None or low.placement is None or tensor not in low.placement.cycles:
        return None
    cycles = low.placement.cycles[tensor]
    where = "float" if tensor in low.placement.in_float else "8 bits"
    return (
        f"in {where}: {count(cycles.integer)} cycles in 8 bits, {count(cycles.in_float)} in float, "
        "transitions apart"
    )
