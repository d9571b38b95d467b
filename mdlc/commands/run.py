"""mdlc run: compile, build, run once."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from mdlc.answered import answer_of
from mdlc.api import CompiledModel
from mdlc.codegen.answer.checks import read_lines
from mdlc.codegen.plan.sizes import size_text
from mdlc.codegen.run.executable import Executable
from mdlc.commands.console import out, progress
from mdlc.commands.options import COMPILING, GroupedCommand, Job, takes_model
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.types import Array
from mdlc.inputs.pictures import PICTURE_ENDINGS, load_inputs, open_picture
from mdlc.option import Group
from mdlc.output import write_file
from mdlc.precision.calibration_set import InputSet
from mdlc.shown import Shown, top_classes

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
    help="Inputs by name, or a picture, which is resized bilinearly to the network's size, or "
    "with --frame as the device would.",
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
@click.option(
    "--draw",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PICTURE",
    help="Write the picture with boxes, points or the mask drawn on it here; needs --answer.",
)
def command(
    job: Job, source: Path, output: Path | None, labels: Path | None, draw: Path | None
) -> None:
    """Compile MODEL, build it, run it once and print the answer.

    With --answer it is what the class makes of its outputs: labels, boxes, a mask, text. Without,
    it is the best classes of what looks like classes, and the range of other outputs.

    A class that keeps a state (--state) takes the steps of a sequence: arrays that hold many
    inputs along a first axis. Its outputs then have such an axis, too.

    ARM code runs in qemu-aarch64 where this machine is no ARM.
    """
    names = read_lines(labels, "--labels") if labels else None
    picture = _picture(source, draw) if draw is not None else None
    compiled = job.compile().here()
    if draw is not None and compiled.plan.answer is None:
        raise MdlcError("there is nothing to draw", node="--draw", hint="add --answer")
    frames = _frames(compiled, source)
    with progress(job.verbose) as tell:
        tell("building")
        executable = compiled.build()
        tell("running")
        steps = executable.run_many(frames)
    results = compiled.imported.cut(steps[0])
    if len(steps) > 1:
        results = {name: np.stack([step[name] for step in steps]) for name in results}
    answer = _answer(compiled, executable, frames[0], source, names)
    if output is not None:
        buffer = io.BytesIO()
        arrays: dict[str, Any] = dict(results)
        np.savez(buffer, **arrays)
        write_file(output, buffer.getvalue())
    console = out()
    if answer is not None:
        for line in answer.lines():
            console.print(line)
        if draw is not None and picture is not None:
            drawn = io.BytesIO()
            answer.drawn(picture).save(drawn, Image.registered_extensions()[draw.suffix.lower()])
            write_file(draw, drawn.getvalue())
        return
    for name, value in results.items():
        console.print(f"{name} {value.dtype}{list(value.shape)}")
        for line in _summary(value, names):
            console.print(line)


def _frames(compiled: CompiledModel, source: Path) -> list[Mapping[str, Array]]:
    """One input, at whichever of the class's sizes it fits; or the steps of a sequence, where the
    class keeps a state and there are several."""
    refused: MdlcError | None = None
    for one in compiled.sizes:
        try:
            if one.plan.states:
                return list(InputSet(one.graph, one.how, source, "--input"))
            return [load_inputs(source, one.graph, one.how, "--input")]
        except MdlcError as error:
            refused = refused or error
    assert refused is not None
    if compiled.others:
        listed = "; ".join(size_text(plan) for plan in compiled.plan.sizes)
        raise MdlcError(refused.reason, node=refused.node, hint=f"the class's sizes are {listed}")
    raise refused


def _answer(
    compiled: CompiledModel,
    executable: Executable,
    inputs: Mapping[str, Array],
    source: Path,
    names: Sequence[str] | None,
) -> Shown | None:
    """What the class makes of an input, in pixels of the picture where it is one."""
    asked = compiled.plan.answer
    if asked is None:
        return None
    value, scale = answer_of(compiled, executable, source, inputs)
    return Shown(asked.kind, value, names or asked.labels, scale)


def _picture(source: Path, draw: Path) -> Image.Image:
    """The picture that --draw draws on."""
    if draw.suffix.lower() not in PICTURE_ENDINGS:
        raise MdlcError(
            f"{draw.suffix or 'a name without an ending'} is no kind of picture",
            node="--draw",
            hint="end the name in .png or .jpg",
        )
    if source.suffix.lower() not in PICTURE_ENDINGS:
        raise MdlcError("needs a picture", node="--draw", hint="give --input a picture")
    return open_picture(source, "RGB")


def _summary(value: Array, labels: Sequence[str] | None) -> list[str]:
    """The best classes of what looks like classes, else the range of the values."""
    if value.dtype.kind == "f" and value.size == max(value.shape, default=1) >= FEWEST_CLASSES:
        return top_classes(value, labels)
    if value.size <= 10:
        return [f"  {value.tolist()}"]
    numbers = value.astype(np.float64)
    return [f"  from {numbers.min():.6g} to {numbers.max():.6g}, mean {numbers.mean():.6g}"]
