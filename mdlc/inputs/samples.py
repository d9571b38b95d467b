"""Many inputs of a network, with labels: calibration and test data."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph
from mdlc.compiler.types import Array
from mdlc.inputs.pictures import PICTURE_ENDINGS, fit_inputs, load_inputs
from mdlc.inputs.preprocess import Preprocess

LABELS = "labels"


@dataclass(frozen=True)
class Samples:
    """Inputs of a preprocessed network, one after the other.

    Attributes:
        inputs: for each sample, values by input name.
        labels: the class of each, or None.
        source: the folder or file, for messages.
    """

    inputs: tuple[Mapping[str, Array], ...]
    labels: Array | None
    source: str

    def __len__(self) -> int:
        return len(self.inputs)


def load_samples(
    path: Path,
    graph: Graph,
    how: Preprocess,
    asked_by: str,
    *,
    limit: int | None = None,
    labels: Path | None = None,
) -> Samples:
    """Samples from a folder of pictures, a picture, or an NPZ file.

    In an NPZ file each input is an array of its shape, or, for inputs of batch 1, of any number of
    samples along the first axis; an array `labels` holds a class for each sample.

    Args:
        graph: the preprocessed network.
        asked_by: the option, for messages.
        limit: most samples, spread evenly over what is there.
        labels: a CSV file with a header and columns `file` and `class`, for a folder.

    Raises:
        MdlcError: something cannot be read or does not fit, or the labels do not match.
    """
    if not path.exists():
        raise MdlcError("there is no such file or folder", node=str(path), hint="check the path")
    if path.suffix.lower() == ".npz":
        if labels is not None:
            raise MdlcError(
                "labels of an NPZ file are its array 'labels'", node="--test-labels", hint="drop it"
            )
        return _from_npz(path, graph, limit)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURE_ENDINGS)
        if not files:
            raise MdlcError("there are no pictures in this folder", node=str(path))
    else:
        files = [path]
    files = [files[i] for i in _spread(len(files), limit)]
    classes = None if labels is None else _classes(labels, files)
    inputs = tuple(load_inputs(file, graph, how, asked_by) for file in files)
    return Samples(inputs, classes, str(path))


def _spread(count: int, limit: int | None) -> list[int]:
    wanted = count if limit is None else min(limit, count)
    return [i * count // wanted for i in range(wanted)]


def _classes(path: Path, files: list[Path]) -> Array:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            found = {row["file"]: int(row["class"]) for row in csv.DictReader(file)}
    except FileNotFoundError:
        raise MdlcError("there is no such file", node=str(path), hint="check the path") from None
    except (KeyError, ValueError, TypeError, UnicodeDecodeError, csv.Error) as error:
        raise MdlcError(
            "is no table of labels",
            node=str(path),
            hint="write a CSV file with a header and the columns file and class (a number)",
        ) from error
    missing = [file.name for file in files if file.name not in found]
    if missing:
        raise MdlcError(
            f"{len(missing)} of {len(files)} pictures have no label, {missing[0]!r} first",
            node=str(path),
        )
    return np.array([found[file.name] for file in files])


def _from_npz(path: Path, graph: Graph, limit: int | None) -> Samples:
    try:
        with np.load(path, allow_pickle=False) as loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    except Exception as error:  # numpy and zipfile raise many kinds on damaged files
        raise MdlcError(
            "is not a readable NPZ file", node=str(path), hint="write it with numpy.savez"
        ) from error
    classes = arrays.pop(LABELS, None)
    if len(graph.inputs) == 1 and len(arrays) == 1:
        arrays = {graph.inputs[0].name: next(iter(arrays.values()))}
    count = _count(arrays, graph)
    if classes is not None and (classes.shape != (count,) or classes.dtype.kind not in "iu"):
        raise MdlcError(
            f"there are {count} samples but labels of shape {list(classes.shape)} "
            f"and type {classes.dtype}",
            node=str(path),
            hint="give one whole number for each sample",
        )
    chosen = _spread(count, limit)
    inputs = tuple(
        fit_inputs({n: a[i : i + 1] for n, a in arrays.items()}, graph, str(path))
        if _batched(graph)
        else fit_inputs(arrays, graph, str(path))
        for i in chosen
    )
    return Samples(inputs, None if classes is None else classes[chosen], str(path))


def _batched(graph: Graph) -> bool:
    return all(node.shape[:1] == (1,) for node in graph.inputs)


def _count(arrays: Mapping[str, Array], graph: Graph) -> int:
    if not _batched(graph):
        return 1
    lengths = {
        len(a) for n, a in arrays.items() if a.ndim and any(n == i.name for i in graph.inputs)
    }
    return min(lengths, default=1)
