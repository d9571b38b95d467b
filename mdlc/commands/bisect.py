"""mdlc bisect: the pass and the rewrite that do harm."""

from __future__ import annotations

from pathlib import Path

import click

from mdlc.checks.bisect import Culprit, find_culprit
from mdlc.commands.console import err, out, progress
from mdlc.commands.options import GroupedCommand, Job, takes_model
from mdlc.commands.variants import single
from mdlc.inputs.pictures import load_inputs, random_inputs
from mdlc.option import Group


@click.command("bisect", cls=GroupedCommand, example="mdlc bisect model.onnx --input cat.png")
@takes_model({Group.TARGET, Group.INPUT, Group.CODE, Group.SCHEDULES, Group.PASSES})
@click.option(
    "--input",
    "source",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="A picture or an NPZ file on which the network is wrong. Default: random values.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the random values."
)
def command(job: Job, source: Path | None, seed: int) -> None:
    """Name the pass, and in it the rewrite, that moves an output of MODEL beyond its bound.

    First the graphs that the passes leave are compared with the model in double precision, then,
    where they agree, the classes emitted from them. Exit code 1 if one does harm.
    """
    single(job, "bisect")
    compiled = job.compile()
    values = (
        random_inputs(compiled.graph, compiled.how, seed)
        if source is None
        else load_inputs(source, compiled.graph, compiled.how, "--input")
    )
    with progress(job.verbose) as tell:
        tell("bisecting")
        found = find_culprit(compiled, values)
    if found is None:
        out().print("no pass moves a tensor beyond its bound, and neither does the emitted class")
        return
    out().print(_told(found))
    err().print("mdlc: a pass or a kernel is wrong: please report these lines with the model")
    raise click.exceptions.Exit(1)


def _told(culprit: Culprit) -> str:
    if culprit.name == "import":
        return f"no pass is to blame: {culprit.fault} before the first one"
    where = "the class emitted behind it" if culprit.emitted else "the graph behind it"
    lines = [f"pass {culprit.name} (number {culprit.number}): {where} is wrong: {culprit.fault}"]
    if culprit.event is not None:
        lines.append(
            f"rewrite {culprit.rewrite} of it: rule {culprit.event.rule} at {culprit.event.node!r}"
        )
    lines.append(f"without it: --passes=-{culprit.name}")
    return "\n".join(lines)
