"""mdlc tune: schedules by measurement."""

from __future__ import annotations

from pathlib import Path

import click

from mdlc.codegen.run.measure import find_machine
from mdlc.codegen.target import target_of
from mdlc.commands.console import count, progress
from mdlc.commands.options import COMPILING, GroupedCommand, Job, takes_model
from mdlc.commands.paths import Written
from mdlc.commands.tables import Column, Form, Sheet, number, prints_table
from mdlc.commands.variants import single
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.words import Counting
from mdlc.option import Group
from mdlc.tuning import REPEATS, TOP, TOP_COUNTED, Tuning, layers_of, tune

COLUMNS = (
    Column("layer", "layer", least=20),
    number("times", "times", rank=2),
    Column("by_model", "by the model", least=14, rank=1),
    number("model_cost", "model's", count),
    Column("best", "measured best", least=14),
    number("best_cost", "best", count),
)


@click.command(
    "tune", cls=GroupedCommand, example="mdlc tune model.onnx -t arm-neon --runner 'ssh phone'"
)
@takes_model(COMPILING - {Group.SCHEDULES})
@click.option(
    "--table",
    "path",
    type=Written(),
    metavar="FILE",
    help="The table; one that is there is continued. Default: TARGET.tuned.json, here.",
)
@click.option(
    "--runner",
    metavar="PREFIX",
    help="Command in front of the measuring programs, such as 'ssh phone' or "
    "'qemu-aarch64 -cpu cortex-a72' (which counts instructions).",
)
@click.option(
    "--push",
    metavar="COMMAND",
    help="Copies a file to where the runner starts, {} standing for its path: 'scp {} phone:'.",
)
@click.option(
    "--top",
    type=click.IntRange(0),
    help="Candidates of a layer, the cheapest by the cost model and the best of each other "
    f"algorithm; 0 for all. Default: {TOP}, or {TOP_COUNTED} where instructions are counted.",
)
@click.option(
    "--repeats",
    type=click.IntRange(1),
    default=REPEATS,
    show_default=True,
    help="Measurements of each candidate; medians are kept.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    help="Begin no further layers after so long; the same command goes on later.",
)
@prints_table(COLUMNS)
def command(
    job: Job,
    path: Path | None,
    runner: str | None,
    push: str | None,
    top: int | None,
    repeats: int,
    minutes: float | None,
    form: Form,
) -> None:
    """Measure the schedules of MODEL's layers into a table for --tuned.

    Every distinct layer is built by its cheapest schedules, as the cost model sees them, into a
    small program and measured. The table is written after every layer, so that an interrupted
    run goes on where it stopped.
    """
    single(job, "tune")
    compiled = job.changed(tuned=()).compile()
    if not target_of(compiled.plan).timed:
        name = compiled.plan.backend.name
        raise MdlcError(
            f"target {name} runs on a simulator here, so its times say nothing about real hardware",
            node="--target",
        )
    isa = compiled.plan.isa
    layers = layers_of([compiled.plan])
    path = path or Path(f"{isa.name}.tuned.json")
    with progress(job.verbose) as tell:
        found = tune(
            layers,
            isa,
            path,
            find_machine(isa, runner, push),
            top=top,
            repeats=repeats,
            seconds=None if minutes is None else 60 * minutes,
            progress=lambda done, total, text: tell(Counting("measuring layers", done, total)),
        )
    print_tuning(found, path, form)


def print_tuning(found: Tuning, path: Path, form: Form) -> None:
    """Where the table chooses otherwise than the cost model, and the sum of it."""
    rows = [
        {
            "layer": change.key,
            "times": change.count,
            "by_model": change.model,
            "model_cost": change.model_cost,
            "best": change.best,
            "best_cost": change.best_cost,
        }
        for change in found.changes
    ]
    if found.table is None:
        form.line(
            f"nothing was measured; {found.left} layers are left for another run"
            if found.left
            else "no layer has more than one schedule; there is nothing to measure"
        )
    if found.changes or not form.text:
        form.show(Sheet(COLUMNS, rows))
    gain = 100 * (1 - found.best_total / found.model_total) if found.model_total else 0.0
    rest = f", {found.left} left for another run" if found.left else ""
    if found.table is not None:
        form.line(
            f"{path}: {found.measured} layers measured, {found.kept} known before{rest}; the "
            f"table chooses otherwise than the cost model for {len(found.changes)}, which saves "
            f"{gain:.1f} % of {count(found.model_total)} {found.table.metric}"
        )
        form.line(f"next: mdlc MODEL --tuned {path}")
    form.document(
        {
            "table": str(path),
            "measured": found.measured,
            "known": found.kept,
            "left": found.left,
            "metric": None if found.table is None else found.table.metric,
            "model_total": found.model_total,
            "best_total": found.best_total,
            "changes": form.sorted(Sheet(COLUMNS, rows)),
        }
    )
