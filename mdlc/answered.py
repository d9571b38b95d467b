"""A picture in, what the emitted class makes of it out, in pixels of the picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mdlc.api import CompiledModel
from mdlc.codegen.cpp.emit import picture_size
from mdlc.codegen.run.executable import Executable
from mdlc.compiler.types import Array
from mdlc.inputs.pictures import PICTURE_ENDINGS, load_frame, load_inputs, open_picture
from mdlc.inputs.preprocess import picture_input


def answer_of(
    compiled: CompiledModel,
    executable: Executable,
    source: Path,
    inputs: Mapping[str, Array] | None = None,
) -> tuple[Any, tuple[float, float]]:
    """What the class answers, and pixels of the picture for one of the answer, along x and y.

    Args:
        source: a picture, or where `inputs` are from.
        inputs: by name, where they have been read.

    Raises:
        MdlcError: the picture cannot be read.
    """
    is_picture = source.suffix.lower() in PICTURE_ENDINGS
    if is_picture and compiled.how.frame is not None:
        frame = load_frame(source, compiled.graph, compiled.how)
        name = picture_input(compiled.graph, "--frame").name
        rest = {n: value for n, value in (inputs or {}).items() if n != name}
        return executable.answer_frame(frame, rest), (1.0, 1.0)
    if inputs is None:
        inputs = load_inputs(source, compiled.graph, compiled.how, "--input")
    scale = (1.0, 1.0)
    if is_picture:
        height, width = picture_size(compiled.plan)
        size = open_picture(source, "RGB").size
        scale = (size[0] / width, size[1] / height)
    return executable.answer(inputs), scale


def outputs_of(compiled: CompiledModel, executable: Executable, source: Path) -> dict[str, Array]:
    """What the class computes from a picture, by output.

    Raises:
        MdlcError: the picture cannot be read.
    """
    if compiled.how.frame is not None:
        frame = load_frame(source, compiled.graph, compiled.how)
        return dict(executable.run_frames([frame])[0].outputs)
    return executable(load_inputs(source, compiled.graph, compiled.how, "--input"))
