"""Anchors: the boxes that a detector's candidates stand for, as centre and size in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.types import Array


def blazeface(height: int, width: int, strides: Sequence[int]) -> Array:
    """Anchors of MediaPipe's face detectors: two a layer in the middle of each cell, of size 1.

    Source: MediaPipe, SsdAnchorsCalculator with fixed_anchor_size; layers of equal stride share
    their cells, so that three layers of stride 32 give six anchors a cell.
    """
    rows = []
    for stride in dict.fromkeys(strides):
        each = 2 * list(strides).count(stride)
        for y in range(height // stride):
            for x in range(width // stride):
                rows += [[(x + 0.5) * stride, (y + 0.5) * stride, 1.0, 1.0]] * each
    return np.array(rows, np.float32)


def read_anchors(path: Path, where: str) -> Array:
    """Anchors from a file: .npy, or text with four numbers a line.

    Raises:
        MdlcError: it cannot be read or has no four columns.
    """
    try:
        if path.suffix == ".npy":
            table = np.load(path, allow_pickle=False)
        else:
            table = np.loadtxt(path, delimiter=",", ndmin=2)
    except FileNotFoundError:
        raise MdlcError(f"there is no file {path}", node=where, hint="check the path") from None
    except (OSError, ValueError) as error:
        raise MdlcError(f"{path} is not a table of numbers ({error})", node=where) from None
    if table.ndim != 2 or table.shape[1] != 4 or not np.isfinite(table).all():
        raise MdlcError(
            f"{path} is not a table of four finite columns",
            node=where,
            hint="write centre x, centre y, width and height in pixels, a line for each anchor",
        )
    anchors: Array = table.astype(np.float32)
    return anchors
