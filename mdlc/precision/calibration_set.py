"""Sets of inputs from files: a folder of pictures or an NPZ file, and what their classes are."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph
from mdlc.compiler.types import Array
from mdlc.inputs.pictures import (
    PICTURE_ENDINGS,
    check_picture,
    fit_inputs,
    load_inputs,
    read_arrays,
)
from mdlc.inputs.preprocess import Preprocess, picture_input
from mdlc.quantization.calibrate import NO_SET

Inputs = Mapping[str, Array]


@dataclass(frozen=True)
class InputSet:
    """Inputs of a network, read anew whenever they are walked through.

    Attributes:
        graph: the preprocessed network. how: its preprocessing.
        source: a folder of pictures, one picture, an NPZ or NPY file, or the inputs themselves.
        asked_by: the option, for messages.
    """

    graph: Graph
    how: Preprocess
    source: Path | Sequence[Inputs]
    asked_by: str = "--calibrate"

    def __len__(self) -> int:
        """How many inputs there are, 1 at least.

        Raises:
            MdlcError: they cannot be counted.
        """
        if not isinstance(self.source, Path):
            return max(len(self.source), 1)
        if self.source.is_dir():
            return len(self.pictures())
        if self.source.suffix.lower() in (".npz", ".npy"):
            return _stacked(self.source, self.graph)
        return 1

    def __iter__(self) -> Iterator[Inputs]:
        """The inputs, checked.

        Raises:
            MdlcError: there are none, or one cannot be read or does not fit.
        """
        if not isinstance(self.source, Path):
            if not len(self.source):
                raise MdlcError("the set is empty", node=self.asked_by, hint=NO_SET)
            for number, frame in enumerate(self.source, 1):
                yield fit_inputs(frame, self.graph, f"{self.asked_by}, number {number}")
            return
        if self.source.is_dir():
            picture_input(self.graph, self.asked_by)
            for path in self.pictures():
                yield load_inputs(path, self.graph, self.how, self.asked_by)
        elif self.source.suffix.lower() in (".npz", ".npy"):
            yield from stacked_inputs(self.source, self.graph)
        else:
            yield load_inputs(self.source, self.graph, self.how, self.asked_by)

    def pictures(self) -> list[Path]:
        """The pictures of a folder, by name; see pictures_in."""
        assert isinstance(self.source, Path)
        return pictures_in(self.source)


@dataclass(frozen=True)
class Limited:
    """The first inputs of a set."""

    inputs: InputSet
    most: int

    def __len__(self) -> int:
        return min(len(self.inputs), self.most)

    def __iter__(self) -> Iterator[Inputs]:
        yield from itertools.islice(self.inputs, self.most)


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder, by name.

    Raises:
        MdlcError: there are none, or the folder cannot be read.
    """
    try:
        found = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURE_ENDINGS)
    except OSError as error:
        raise MdlcError(f"cannot be read: {error.strerror}", node=str(folder)) from None
    if not found:
        raise MdlcError(
            "there are no pictures in this folder",
            node=str(folder),
            hint=f"endings are {', '.join(sorted(PICTURE_ENDINGS))}",
        )
    return found


def check_set(source: Path, asked_by: str) -> None:
    """Looks at a set of inputs before the work that reads it begins: at the heads of pictures.

    Raises:
        MdlcError: it is missing, or a picture of it cannot be read.
    """
    if not source.exists():
        raise MdlcError(
            "there is no such file or folder",
            node=str(source),
            hint=f"check the path of {asked_by}",
        )
    unreadable = []
    found = pictures_in(source) if source.is_dir() else []
    for path in found:
        try:
            check_picture(path)
        except MdlcError as error:
            unreadable.append(error)
    if unreadable:
        more = len(unreadable) - 1
        raise MdlcError(
            unreadable[0].reason + (f", nor are {more} more of {len(found)}" if more else ""),
            node=unreadable[0].node,
            hint=f"remove it from {source}, or mend it" if not more else f"look at {source}",
        )


def stacked_inputs(path: Path, graph: Graph) -> Iterator[Inputs]:
    """The inputs in an NPZ file whose arrays hold one, or many along a first axis.

    Raises:
        MdlcError: an array is missing or has another shape, or their numbers differ.
    """
    arrays = read_arrays(path, graph)
    stacks: dict[str, Array] = {}
    for node in graph.arguments:
        if node.name not in arrays:
            raise MdlcError(
                f"no value for input {node.name!r}",
                node=str(path),
                hint=f"it has {', '.join(map(repr, sorted(arrays))) or 'none'}",
            )
        stacks[node.name] = _stack(arrays[node.name], node.shape, node.name, path)
    counts = {len(stack) for stack in stacks.values()}
    if len(counts) > 1:
        raise MdlcError(f"its arrays hold {sorted(counts)} inputs", node=str(path))
    if counts == {0}:
        raise MdlcError("the set is empty", node=str(path), hint=NO_SET)
    for number in range(counts.pop()):
        frame = {name: stack[number] for name, stack in stacks.items()}
        yield fit_inputs(frame, graph, str(path))


def _stacked(path: Path, graph: Graph) -> int:
    """How many inputs an NPZ file holds, by the first of its arrays."""
    arrays, node = read_arrays(path, graph), graph.arguments[0]
    value = arrays.get(node.name)
    return len(_stack(value, node.shape, node.name, path)) if value is not None else 1


def _stack(value: Array, shape: tuple[int, ...], name: str, path: Path) -> Array:
    """An array as [inputs, *shape]."""
    if value.shape == shape:
        return value[None]
    if value.shape[1:] == shape:
        return value
    if shape[:1] == (1,) and value.shape[1:] == shape[1:]:
        return value[:, None]
    raise MdlcError(
        f"input {name!r} has shape {list(value.shape)}, not {list(shape)} or many of that",
        node=str(path),
    )


def labelled(inputs: InputSet, labels: Path) -> list[tuple[Inputs, int]]:
    """Inputs with their classes, as the network counts them.

    Args:
        labels: a CSV file. For pictures its first two columns are the file's name and the class;
            for an NPZ file its last column of each line is the class of that input. A first line
            without a number is a heading.

    Raises:
        MdlcError: the file cannot be read, holds no classes, or names no picture of the set.
    """
    rows = _rows(labels)
    if isinstance(inputs.source, Path) and inputs.source.is_dir():
        by_name: dict[str, int] = {}
        for line, row in rows:
            if len(row) < 2:
                raise MdlcError(f"line {line} has no class", node=str(labels),
                                hint="write file,class")  # fmt: skip
            by_name[row[0]] = _class(row[1], line, labels)
        chosen = [path for path in inputs.pictures() if path.name in by_name]
        if not chosen:
            raise MdlcError(
                f"names no picture of {inputs.source}", node=str(labels), hint="write file,class"
            )
        return [
            (load_inputs(p, inputs.graph, inputs.how, inputs.asked_by), by_name[p.name])
            for p in chosen
        ]
    classes = [_class(row[-1], line, labels) for line, row in rows]
    frames = list(inputs)
    if len(classes) != len(frames):
        raise MdlcError(f"{len(classes)} classes for {len(frames)} inputs", node=str(labels))
    return list(zip(frames, classes, strict=True))


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [(n, row) for n, row in enumerate(csv.reader(file), 1) if row]
    except FileNotFoundError:
        raise MdlcError("there is no such file", node=str(path), hint="check the path") from None
    except (OSError, UnicodeDecodeError, csv.Error):
        raise MdlcError("is no CSV file that can be read", node=str(path)) from None
    if rows and not any(cell.strip().lstrip("-").isdigit() for cell in rows[0][1]):
        rows = rows[1:]
    if not rows:
        raise MdlcError("holds no classes", node=str(path), hint="write file,class")
    return rows


def _class(text: str, line: int, path: Path) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise MdlcError(f"line {line}: {text!r} is not a class", node=str(path),
                        hint="classes are numbers from 0, as the network counts them")  # fmt: skip
    return value


def top_classes_of(outputs: Iterable[Mapping[str, Array]]) -> list[int]:
    """The class with the highest score in the first output of every inference."""
    found = []
    for output in outputs:
        scores = next(iter(output.values()))
        found.append(int(np.argmax(scores)) if scores.dtype.kind == "f" else int(scores.flat[0]))
    return found
