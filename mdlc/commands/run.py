"""mdlc run: compile, build, run once."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from mdlc.api import CompiledModel
from mdlc.checks.verification import top_classes
from mdlc.commands.console import out, progress
from mdlc.commands.options import COMPILING, GroupedCommand, Job, takes_model
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.types import Array
from mdlc.inputs.pictures import load_inputs
from mdlc.option import Group
from mdlc.output import write_file
from mdlc.precision.calibration_set import InputSet

FEWEST_CLASSES = 2


@click.command("run", cls=GroupedCommand)
@takes_model(COMPILING - {Group.LABELS})
@click.option(
    "-i",
    "--input",
    "source",
    type=click.Path(path_type=Path),
    required=True,
    metavar="NPZ|PICTURE",
    help="Inputs by name, or a picture, which is resized bilinearly to the network's size.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="NPZ",
    help="Write the outputs here, by name.",
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Names of the classes, one a line.",
)
def command(job: Job, source: Path, output: Path | None, labels: Path | None) -> None:
    """Compile MODEL, build it, run it once and print the answer.

    A class that keeps a state (--state) takes the steps of a sequence: arrays that hold many
    inputs along a first axis. Its outputs then have such an axis, too.

    ARM code runs in qemu-aarch64 where this machine is no ARM.
    """
    names = _labels(labels) if labels else None
    compiled = job.compile()
    frames = _frames(compiled, source)
    with progress(job.verbose) as tell:
        tell("building")
        executable = compiled.build()
        tell("running")
        steps = executable.run_many(frames)
    results = compiled.imported.cut(steps[0])
    if len(steps) > 1:
        results = {name: np.stack([step[name] for step in steps]) for name in results}
    if output is not None:
        buffer = io.BytesIO()
        arrays: dict[str, Any] = dict(results)
        np.savez(buffer, **arrays)
        write_file(output, buffer.getvalue())
    console = out()
    for name, value in results.items():
        console.print(f"{name} {value.dtype}{list(value.shape)}")
        for line in _summary(value, names):
            console.print(line)


def _frames(compiled: CompiledModel, source: Path) -> list[Mapping[str, Array]]:
    """One input; the steps of a sequence, where the class keeps a state and there are several."""
    if compiled.plan.states:
        return list(InputSet(compiled.graph, compiled.how, source, "--input"))
    return [load_inputs(source, compiled.graph, compiled.how, "--input")]


def _labels(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise MdlcError("cannot be read", node=str(path), hint="check the path") from None


def _summary(value: Array, labels: list[str] | None) -> list[str]:
    """The best classes of what looks like classes, else the range of the values."""
    if value.dtype.kind == "f" and value.size == max(value.shape, default=1) >= FEWEST_CLASSES:
        return top_classes(value, labels)
    if value.size <= 10:
        return [f"  {value.tolist()}"]
    numbers = value.astype(np.float64)
    return [f"  from {numbers.min():.6g} to {numbers.max():.6g}, mean {numbers.mean():.6g}"]
