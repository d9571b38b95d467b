"""mdlc bug-report: an archive to send in."""

from __future__ import annotations

from pathlib import Path

import click
import onnx

from mdlc.api import CompiledModel
from mdlc.bug_report import bug_report
from mdlc.checks.bisect import class_fault
from mdlc.commands.console import out
from mdlc.commands.options import GroupedCommand, Job, takes_model
from mdlc.commands.paths import Written
from mdlc.inputs.pictures import random_inputs
from mdlc.inputs.sources import read_model
from mdlc.option import Group
from mdlc.output import write_file


@click.command("bug-report", cls=GroupedCommand)
@takes_model(frozenset(Group))
@click.option(
    "-o",
    "--output",
    type=Written(),
    default=Path("mdlc-bug-report.zip"),
    show_default=True,
    metavar="FILE",
    help="The archive.",
)
@click.option(
    "--verify", "judged", is_flag=True, help="Also run the class, and name a wrong layer."
)
def command(job: Job, output: Path, judged: bool) -> None:
    """Pack what a report about MODEL needs, and nothing that is secret in its weights.

    Versions and compilers, the command line, what happens (an error with its place in mdlc, or the
    layers), and the model's operators, shapes, types and constants of up to 64 elements, with
    other values in place of its weights. Names in the model are kept. Look through it before you
    send it.
    """
    source = read_model(job.model)
    model = onnx.load(source.path) if source.path is not None else source.onnx
    targets = job.options.found_targets()
    text = job.options.command_line(source.file_name, targets)

    def judge(compiled: CompiledModel) -> str:
        return class_fault(compiled, random_inputs(compiled.graph, compiled.how))

    write_file(output, bug_report(model, text, job.compile, judge if judged else None))
    out().print(str(output), soft_wrap=True)
