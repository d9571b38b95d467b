"""mdlc MODEL: compile."""

from __future__ import annotations

from pathlib import Path

import click

from mdlc.api import CompiledModel
from mdlc.checks import sbom as bill
from mdlc.checks.certificate import Data, as_bytes, certificate, from_files, seeded
from mdlc.commands.console import byte_count, count, err, out, progress
from mdlc.commands.options import GroupedCommand, Job, takes_model
from mdlc.commands.paths import Written
from mdlc.compiler.errors import MdlcError
from mdlc.option import Group
from mdlc.output import depfile, write_file, write_files
from mdlc.precision.calibration_set import InputSet

# Of a set of inputs that is given for a certificate.
MOST_INPUTS = 20


def certificate_data(compiled: CompiledModel, source: Path | None, flag: str) -> Data:
    """What a certificate's errors are measured on.

    Raises:
        MdlcError: the inputs cannot be read, or are given for a class of several sizes.
    """
    if source is None:
        return seeded(compiled)
    if compiled.others:
        raise MdlcError("are of one size, but the class has several", node=flag,
                        hint="leave it out, or give every input one shape")  # fmt: skip
    inputs = InputSet(compiled.graph, compiled.how, source, flag)
    return from_files(inputs, source, MOST_INPUTS)


@click.command(
    "compile", cls=GroupedCommand, example="mdlc model.onnx --target arm-neon -o out", whole=True
)
@takes_model(frozenset(Group))
@click.option(
    "-o",
    "--output",
    type=Written(folder=True),
    default=Path(),
    metavar="DIR",
    help="Folder for the files; made where missing. Default: here.",
)
@click.option(
    "--depfile",
    "dependencies",
    type=Written(),
    metavar="FILE",
    help="Also write a dependency file for Make, Ninja or CMake.",
)
@click.option(
    "--certificate",
    "certified",
    is_flag=True,
    help="Also write NAME.certificate.json: digests, the error and its bound of every layer, and "
    "memory. Builds and runs the class.",
)
@click.option(
    "--certificate-inputs",
    "inputs",
    type=click.Path(path_type=Path),
    metavar="DIR|NPZ",
    help="Inputs that errors are measured on (the first 20). Default: seeded values, zeros and "
    "extremes.",
)
@click.option("--sbom", is_flag=True, help="Also write NAME.cdx.json: a CycloneDX document.")
def command(
    job: Job,
    output: Path,
    dependencies: Path | None,
    certified: bool,
    inputs: Path | None,
    sbom: bool,
) -> None:
    """Compile MODEL (.onnx, or .pt2 where torch is installed) to a C++ class.

    Writes the header, the sources, the weights, a JSON manifest, an example main and a
    CMakeLists.txt, and prints their paths.
    """
    if inputs is not None and not certified:
        raise MdlcError("only --certificate uses it", node="--certificate-inputs",
                        hint="add --certificate")  # fmt: skip
    compiled = job.compile()
    files = compiled.files()
    if sbom:
        files[f"{compiled.name}.cdx.json"] = bill.sbom(compiled)
    if certified:
        with progress(job.verbose) as tell:
            tell("measuring errors and memory")
            found = certificate(
                compiled, certificate_data(compiled, inputs, "--certificate-inputs")
            )
        files[f"{compiled.name}.certificate.json"] = as_bytes(found)
    paths = write_files(output, files)
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
