"""mdlc report: one page on how fast, how big and how right a class is, and why."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import click

from mdlc.api import CompiledModel
from mdlc.commands.console import counting, progress
from mdlc.commands.options import GroupedCommand, Job, takes_model
from mdlc.commands.paths import Written
from mdlc.commands.variants import single
from mdlc.compiler.errors import MdlcError
from mdlc.drawing import svg
from mdlc.inputs.pictures import random_inputs
from mdlc.output import write_files
from mdlc.precision.calibration_set import InputSet, check_set
from mdlc.reports.compare import compare, read_report
from mdlc.reports.gather import Document, Inputs, gather
from mdlc.reports.layout import layered
from mdlc.reports.page import Page, check_can_draw
from mdlc.reports.sections import page

REPEATS = 20
RANDOM_STEPS = 5  # of a sequence, where the class keeps a state
_COMPARE = "--compare"
_FIGURES = ".json"  # the ending of the file of figures beside the page


@click.command("report", cls=GroupedCommand, example="mdlc report model.onnx -o report.html")
@takes_model(optional=True)
@click.option(
    "--input",
    "source",
    type=click.Path(path_type=Path),
    metavar="DIR|NPZ|PICTURE",
    help="What errors are measured on. Default: random values.",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    help="Most inputs to measure errors on.",
)
@click.option(
    "--compare",
    "compared",
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="A.json B.json",
    help="Put two reports side by side, as JSON, instead of a MODEL.",
)
@click.option(
    "-o",
    "--output",
    type=Written(),
    default=Path("report.html"),
    show_default=True,
    metavar="FILE",
    help="The page; the figures stand beside it as JSON.",
)
def command(
    job: Job | None,
    source: Path | None,
    limit: int,
    compared: tuple[Path, Path] | None,
    output: Path,
) -> None:
    """Write a page on how fast, big and right the class for MODEL is, and how it came about.

    Times are measured where the target runs on this machine and predicted by the cost model
    elsewhere, and marked so; errors are measured where anything here runs the class. The page is
    one file that loads nothing.
    """
    check_can_draw("mdlc report")
    if compared is not None:
        if job is not None:
            raise MdlcError("takes no MODEL", node=_COMPARE, hint="leave it out")
        made = compare(*(read_report(path) for path in compared))
        _write(output, made, None)
        return
    if job is None:
        raise MdlcError("there is no MODEL", hint=f"name one, or {_COMPARE} A.json B.json")
    if output.suffix == _FIGURES:
        raise MdlcError("is where the figures go", node=str(output), hint="end it in .html")
    if source is not None:
        check_set(source, "--input")
    single(job, "report")
    compiled = job.compile()
    with progress(job.verbose) as tell:
        found = gather(
            compiled,
            list(counting(_inputs(compiled, source, limit), "reading inputs", tell)),
            repeats=REPEATS,
            progress=tell,
        )
        tell("drawing graphs")
        before, after = (svg(graph, layered) for graph in (compiled.imported, compiled.graph))
        made = page(found, before, after)
        tell("writing the page")
        _write(output, made, found)


def _inputs(compiled: CompiledModel, source: Path | None, limit: int) -> Inputs:
    graph, how = compiled.graph, compiled.how
    if source is not None:
        return list(itertools.islice(InputSet(graph, how, source, "--input"), limit))
    count = RANDOM_STEPS if graph.states else 1
    return [random_inputs(graph, how, seed) for seed in range(count)]


def _write(output: Path, made: Page, found: Document | None) -> None:
    """Writes the page, and the figures beside it."""
    files = {output.name: made.html()}
    if found is not None:
        files[output.with_suffix(_FIGURES).name] = (json.dumps(found, indent=1) + "\n").encode()
    for path in write_files(output.parent, files):
        click.echo(path)
