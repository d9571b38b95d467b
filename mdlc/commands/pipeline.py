"""mdlc pipeline: two networks, one behind the other, as one class."""

from __future__ import annotations

from pathlib import Path

import click

from mdlc.chain import compile_chain
from mdlc.commands.console import byte_count, out, progress
from mdlc.commands.options import GroupedCommand, Job, takes_model
from mdlc.commands.paths import Written
from mdlc.option import Group


@click.command("pipeline", cls=GroupedCommand, example="mdlc pipeline reader.toml -o out")
@takes_model(
    frozenset({Group.TARGET, Group.CODE, Group.WEIGHTS, Group.SCHEDULES}), argument="recipe"
)
@click.option(
    "-o",
    "--output",
    type=Written(folder=True),
    default=Path(),
    metavar="DIR",
    help="Folder for the files; made where missing. Default: here.",
)
def command(job: Job, output: Path) -> None:
    """Compile two networks to one C++ class: one that finds boxes or text, and one that looks at
    each of them.

    RECIPE is a TOML file: [first] and [second] name a model, what it takes and what it answers
    with, [region] what the second one sees. Both share one working memory and one weights file.
    """
    with progress(job.verbose) as tell:
        compiled = compile_chain(job.model, job.options, progress=tell)
    console = out()
    for path in compiled.write(output):
        console.print(str(path), soft_wrap=True)
    if console.is_terminal:
        console.print(f"{compiled.name}: arena {byte_count(compiled.chain.arena_bytes)}")
