"""What a kind of answer adds to the emitted class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mdlc.codegen.answer.columns import Columns, Output, find_port, parse_columns
from mdlc.codegen.templates import render
from mdlc.codegen.tiles.formula import literal
from mdlc.compiler.errors import MdlcError

# What a class that answers declares; a layer of that name would hide it.
ANSWER_MEMBERS = frozenset(
    {"Transform", "Box", "Boxes", "Class", "Classes", "Keypoint", "Keypoints", "Mask", "Text"}
    | {"Corner", "Quad", "Quads", "Run", "MaskOf"}
    | {"Embedding", "Label", "Layers", "answer", "transform"}
)


@dataclass(frozen=True)
class AnswerCode:
    """The text of an answer, for the class of one network.

    Attributes:
        type: name of the struct that `infer` fills, such as Boxes.
        struct: its declaration and what it needs, inside the class.
        source: the function `Decode(const float* outputs..., const Transform&, TYPE&)` with its
            helpers, inside the namespace of the source.
        outputs: the outputs whose pointers Decode takes, in order.
        includes: standard headers of the source.
        dtype: the struct as NumPy reads its bytes.
        manual: what the header says of it, in a line.
        placed: whether it has places in the picture, which Decode takes through the transform.
        shown: lines of the header's example that print `answer`; prepare: and before infer.
        sized: Decode takes the picture's width and height before the struct.
        elements: what the structs inside are called in C++, by the fields of dtype that hold them.
        confident: of a mask: it has a confidence beside the labels.
        classes: how many classes labels tell apart; 0: labels mean nothing, or are not counted.
        masks: the output whose maps masks of boxes are made of, by the class's MaskOf.
        scratch: bytes of working memory (Plan.answer_scratch) that Decode takes behind the outputs.
        bad: condition under which what the caller gave cannot be filled; empty: never.
    """

    type: str
    struct: str
    source: str
    outputs: tuple[Output, ...]
    includes: frozenset[str]
    dtype: np.dtype[Any]
    manual: str
    shown: tuple[str, ...] = ()
    prepare: tuple[str, ...] = ()
    placed: bool = False
    sized: bool = False
    bad: str = ""
    elements: Mapping[str, str] = field(default_factory=dict)
    confident: bool = False
    classes: int = 0
    scratch: int = 0
    masks: Output | None = None


@dataclass(frozen=True)
class Network:
    """What answers know of the network.

    Attributes:
        name: of the class.
        outputs: by ONNX name.
        height, width: of its picture, in pixels.
    """

    name: str
    outputs: Mapping[str, Output]
    height: int
    width: int


def only(name: str | None, key: str, network: Network) -> Columns:
    """The attributes of the one place that an output is about.

    Args:
        name: see `columns.parse_columns`; None: the network's only output.

    Raises:
        MdlcError: there is not one output, or it has several places.
    """
    where = f"[answer] {key}"
    name = only_output(None, key, network).name if name is None else name
    found = parse_columns(name, network.outputs, where)
    if found.candidates != 1:
        raise MdlcError(
            f"{found.port.name} has numbers for {found.candidates} places, not for one picture",
            node=where,
            hint="choose an answer that has places, such as boxes or a mask",
        )
    return found


def argument_of(output: Output) -> str:
    """What Decode calls an output, which may have the name of anything inside it."""
    return f"{output.identifier}_output"


def factor(step: int) -> str:
    """` * step` behind an index, or nothing."""
    return "" if step == 1 else f" * {step}"


def only_output(name: str | None, key: str, network: Network) -> Output:
    """An output by name; None: the network's only one.

    Raises:
        MdlcError: there is no such output, or several.
    """
    where = f"[answer] {key}"
    if name is None:
        if len(network.outputs) != 1:
            raise MdlcError(
                f"the network has {len(network.outputs)} outputs",
                node=where,
                hint=f"name one of {', '.join(network.outputs)}",
            )
        (name,) = network.outputs
    return find_port(name, network.outputs, where)


def text(template: str, /, **context: object) -> str:
    """A template of runtime_templates/cpp/answer."""
    return render(f"cpp/answer/{template}", literal=literal, **context)
