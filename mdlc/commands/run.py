"""mdlc run: compile, build, run once."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from mdlc.answered import answer_of
from mdlc.answers import check_labels
from mdlc.api import CompiledModel
from mdlc.codegen.answer.checks import read_lines
from mdlc.codegen.answer.keypoints import skeleton_lines
from mdlc.codegen.cpp.emit import answer_code
from mdlc.codegen.plan.sizes import size_text
from mdlc.codegen.run.executable import Executable
from mdlc.codegen.target import target_of
from mdlc.commands.console import byte_count, counting, err, out, progress
from mdlc.commands.options import COMPILING, GroupedCommand, Job, takes_model
from mdlc.commands.paths import Written
from mdlc.commands.tables import Column, Form, Sheet, number, prints_table
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.types import Array
from mdlc.inputs.pictures import PICTURE_ENDINGS, check_picture, load_inputs, open_picture
from mdlc.option import Group
from mdlc.output import write_file
from mdlc.precision.calibration_set import InputSet, check_set
from mdlc.shown import Shown, best_classes, class_line

FEWEST_CLASSES = 2
_TIMED = 5  # inferences whose median is told


@click.command(
    "run", cls=GroupedCommand, example="mdlc run model.onnx -i cat.jpg --labels names.txt"
)
@takes_model(COMPILING - {Group.LABELS})
@click.option(
    "-i",
    "--input",
    "source",
    type=click.Path(path_type=Path),
    required=True,
    metavar="NPZ|PICTURE|FOLDER",
    help="Inputs by name, or a picture, which is resized bilinearly to the network's size, or "
    "with --frame as the device would; or a folder of pictures, one after the other.",
)
@click.option(
    "--output",
    "-o",
    type=Written(),
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
    type=Written(folder=None),
    metavar="PICTURE|FOLDER",
    help="Write the picture with boxes, points or the mask drawn on it here; needs --answer.",
)
@prints_table()
def command(
    job: Job,
    source: Path,
    output: Path | None,
    labels: Path | None,
    draw: Path | None,
    form: Form,
) -> None:
    """Compile MODEL, build it, run it once and print the answer.

    With --answer it is what the class makes of its outputs: labels, boxes, a mask, text. Without,
    it is the best classes of what looks like classes, as probabilities, and the range of other
    outputs. On a terminal, or with -v, it is also told what an inference takes in time and memory.

    A class that keeps a state (--state) takes the steps of a sequence: arrays that hold many
    inputs along a first axis. Its outputs then have such an axis, too.

    ARM code runs in qemu-aarch64 where this machine is no ARM.
    """
    names = read_lines(labels, "--labels") if labels else None
    if draw is not None:
        _check_drawing(source, draw)
    if source.is_dir():
        check_set(source, "--input")
    elif source.is_file() and source.suffix.lower() in PICTURE_ENDINGS:
        check_picture(source)
    compiled = job.compile().here()
    if names is not None:
        check_labels(names, _classes(compiled), "--labels")
    if draw is not None and compiled.plan.answer is None:
        raise MdlcError("there is nothing to draw", node="--draw", hint="add --answer")
    several = source.is_dir() and not compiled.plan.states
    sources = (
        InputSet(compiled.graph, compiled.how, source, "--input").pictures()
        if several
        else [source]
    )
    given = [_frames(compiled, each) for each in sources]
    with progress(job.verbose) as tell:
        tell("building")
        executable = compiled.build()
        tell("running")
        runs = [executable.run_many(frames) for frames in counting(given, "running", tell)]
    steps = [step for run in runs for step in run]
    if output is not None:
        results = compiled.imported.cut(steps[0])
        if len(steps) > 1:
            results = {name: np.stack([step[name] for step in steps]) for name in results}
        buffer = io.BytesIO()
        arrays: dict[str, Any] = dict(results)
        np.savez(buffer, **arrays)
        write_file(output, buffer.getvalue())
    console = out()
    documents = []
    for each, frames, run in zip(sources, given, runs, strict=True):
        if several:
            form.line(each.name)
        answer = _answer(compiled, executable, frames[0], each, names)
        outputs = [] if answer is not None else _outputs(compiled, run, names)
        lines = [line for found in outputs for line in found.lines]
        for line in lines if answer is None else answer.lines():
            form.line(line)
        for found in outputs:
            if found.classes:
                sheet = Sheet(CLASSES, found.classes)
                if not form.text:
                    form.show(sheet, input=each.name, output=found.name)
        documents.append(
            {
                "input": each.name,
                "answer": None if answer is None else answer.lines(),
                "outputs": [asdict(found) for found in outputs],
            }
        )
        if answer is not None and draw is not None:
            path = draw / f"{each.stem}.png" if several else draw
            drawn = io.BytesIO()
            picture = answer.drawn(open_picture(each, "RGB"))
            picture.save(drawn, Image.registered_extensions()[path.suffix.lower()])
            write_file(path, drawn.getvalue())
    if job.verbose or console.is_terminal:
        err().print(_cost(compiled, executable, given[0][0]))
    form.document(
        {
            "runs": documents,
            "milliseconds": _milliseconds(executable, given[0][0]) if form.kind == "json" else None,
            "arena_bytes": compiled.plan.working_bytes,
            "weight_bytes": compiled.plan.weight_bytes,
        }
    )


def _milliseconds(executable: Executable, inputs: Mapping[str, Array]) -> float | None:
    """The median of a few inferences; None where an emulator or a simulator computes them."""
    target = target_of(executable.plan)
    if not target.timed or target.emulated:
        return None
    return executable.time(_TIMED, inputs).total / 1e6


def _classes(compiled: CompiledModel) -> set[int]:
    """How many classes --labels may name, as far as that is known."""
    code = answer_code(compiled.plan)
    if code is not None:
        return {code.classes} if code.classes else set()
    found = [node.type for node in compiled.imported.outputs if node.type.dtype.is_float]
    return {kind.size for kind in found if _is_scores(kind.shape)}


def _is_scores(shape: Sequence[int]) -> bool:
    return math.prod(shape) == max(shape, default=1) >= FEWEST_CLASSES


@dataclass(frozen=True)
class _Output:
    """An output as it is shown: lines, and its best classes, if it looks like scores."""

    name: str
    lines: list[str]
    classes: list[dict[str, Any]]


CLASSES = (
    Column("class", "class"),
    Column("label", "label"),
    number("score", "score"),
    number("probability", "probability"),
)


def _outputs(
    compiled: CompiledModel, steps: Sequence[Mapping[str, Array]], names: Sequence[str] | None
) -> list[_Output]:
    """The outputs of an inference, or of the steps of a sequence."""
    results = compiled.imported.cut(steps[0])
    if len(steps) > 1:
        results = {name: np.stack([step[name] for step in steps]) for name in results}
    return [_shown(name, value, names) for name, value in results.items()]


def _cost(compiled: CompiledModel, executable: Executable, inputs: Mapping[str, Array]) -> str:
    """Time and memory in a line; no time where that of an emulator would be told."""
    plan = compiled.plan
    memory = (
        f"{byte_count(plan.working_bytes)} of working memory, {byte_count(plan.weight_bytes)} of "
        "weights"
    )
    time = _milliseconds(executable, inputs)
    if time is None:
        return memory
    return f"{time:.3g} ms an inference on {plan.backend.name}, {memory}"


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
    lines = skeleton_lines(str(asked.values.get("skeleton", "none")))
    return Shown(asked.kind, value, names or asked.labels, scale, lines)


def _check_drawing(source: Path, draw: Path) -> None:
    """What --draw needs is there before work begins."""
    if source.is_dir():
        if draw.suffix or draw.is_file():
            raise MdlcError(
                "is not a folder, as --input is", node=f"--draw {draw}", hint="name a folder"
            )
        return
    if draw.suffix.lower() not in PICTURE_ENDINGS:
        raise MdlcError(
            f"{draw.suffix or 'a name without an ending'} is no kind of picture",
            node="--draw",
            hint="end the name in .png or .jpg",
        )
    if source.suffix.lower() not in PICTURE_ENDINGS:
        raise MdlcError("needs a picture", node="--draw", hint="give --input a picture")
    open_picture(source, "RGB")


def _shown(name: str, value: Array, labels: Sequence[str] | None) -> _Output:
    """The best classes of what looks like classes, else the range of the values."""
    heading = f"{name} {value.dtype}{list(value.shape)}"
    if value.dtype.kind == "f" and _is_scores(value.shape):
        meaning, classes = best_classes(value, labels)
        return _Output(name, [heading + meaning, *map(class_line, classes)], classes)
    if value.size <= 10:
        return _Output(name, [heading, f"  {value.tolist()}"], [])
    numbers = value.astype(np.float64)
    range_ = f"  from {numbers.min():.6g} to {numbers.max():.6g}, mean {numbers.mean():.6g}"
    return _Output(name, [heading, range_], [])
