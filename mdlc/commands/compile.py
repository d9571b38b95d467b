"""mdlc MODEL: compile."""

from __future__ import annotations

from pathlib import Path

import click

from mdlc.commands.console import byte_count, count, err, out
from mdlc.commands.options import GroupedCommand, Job, takes_model
from mdlc.option import Group
from mdlc.output import depfile, write_file


@click.command("compile", cls=GroupedCommand)
@takes_model(frozenset(Group))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    metavar="DIR",
    help="Folder for the files; made where missing. Default: here.",
)
@click.option(
    "--depfile",
    "dependencies",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also write a dependency file for Make, Ninja or CMake.",
)
def command(job: Job, output: Path, dependencies: Path | None) -> None:
    """Compile MODEL (.onnx, or .pt2 where torch is installed) to a C++ class.

    Writes the header, the sources, the weights, a JSON manifest, an example main and a
    CMakeLists.txt, and prints their paths.
    """
    compiled = job.compile()
    paths = compiled.write(output)
    if dependencies is not None:
        recipe = [] if job.options.recipe is None else [Path(job.options.recipe)]
        read = [*compiled.model.files, *(job.options.tables or ()), *recipe]
        write_file(dependencies, depfile(paths, read))
    console = out()
    for path in paths:
        console.print(str(path), soft_wrap=True)
    if job.verbose:
        err().print(str(compiled.report()))
    if console.is_terminal:
        for plan in compiled.plans or (compiled.plan,):
            console.print(
                f"{compiled.name} for {plan.backend.name}: {len(plan.steps)} layers, "
                f"{count(plan.macs)} MAC, weights {byte_count(plan.weight_bytes)}, "
                f"arena {byte_count(plan.working_bytes)}"
            )
