"""mdlc tune: schedules by measurement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Column

from mdlc.codegen.run.measure import find_machine
from mdlc.codegen.target import target_of
from mdlc.commands.console import count, err, out, table
from mdlc.commands.options import COMPILING, GroupedCommand, Job, takes_model
from mdlc.commands.variants import single
from mdlc.compiler.errors import MdlcError
from mdlc.option import Group
from mdlc.tuning import REPEATS, TOP, TOP_COUNTED, Progress, Tuning, layers_of, tune


@click.command("tune", cls=GroupedCommand)
@takes_model(COMPILING - {Group.SCHEDULES})
@click.option(
    "--table",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
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
def command(
    job: Job,
    path: Path | None,
    runner: str | None,
    push: str | None,
    top: int | None,
    repeats: int,
    minutes: float | None,
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
    with tuning_progress(job.verbose) as progress:
        found = tune(
            layers,
            isa,
            path,
            find_machine(isa, runner, push),
            top=top,
            repeats=repeats,
            seconds=None if minutes is None else 60 * minutes,
            progress=progress,
        )
    print_tuning(found, path)


@contextmanager
def tuning_progress(verbose: bool) -> Iterator[Progress]:
    """A bar on a terminal, with `verbose` a line for each layer, and nothing in a pipe."""
    console = err()
    if verbose or not console.is_terminal:

        def line(done: int, total: int, text: str) -> None:
            if verbose:
                console.print(f"{done}/{total} {text}")

        yield line
        return
    rest = TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True))
    columns = (BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn(), rest)
    with Bar(*columns, console=console, transient=True, expand=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, text: bar.update(
            task, completed=done, total=total, description=text
        )


def print_tuning(found: Tuning, path: Path) -> None:
    """Where the table chooses otherwise than the cost model, and the sum of it."""
    console = out()
    if found.table is None:
        console.print(
            f"nothing was measured; {found.left} layers are left for another run"
            if found.left
            else "no layer has more than one schedule; there is nothing to measure"
        )
        return
    if found.changes:
        right = ("times", "model's", "best")
        columns = ("layer", "times", "by the model", "model's", "measured best", "best")
        shown = table(*columns, right=right)
        for change in found.changes:
            shown.add_row(
                change.key,
                str(change.count),
                change.model,
                count(change.model_cost),
                change.best,
                count(change.best_cost),
            )
        console.print(shown)
    gain = 100 * (1 - found.best_total / found.model_total) if found.model_total else 0.0
    rest = f", {found.left} left for another run" if found.left else ""
    console.print(
        f"{path}: {found.measured} layers measured, {found.kept} known before{rest}; the table "
        f"chooses otherwise than the cost model for {len(found.changes)}, which saves "
        f"{gain:.1f} % of {count(found.model_total)} {found.table.metric}",
        soft_wrap=True,
    )
