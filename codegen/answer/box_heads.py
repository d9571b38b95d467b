"""The candidates of a description of boxes: which numbers of which outputs, on which grids."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mdlc.codegen.answer.anchors import blazeface, read_anchors
from mdlc.codegen.answer.box_fields import BoxFields
from mdlc.codegen.answer.code import Network
from mdlc.codegen.answer.columns import Columns, parse_columns
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.types import Array

_PARTS = ("scores", "boxes", "sizes", "coefficients", "objectness", "label", "angle", "keypoints")


@dataclass(frozen=True)
class Head:
    """The candidates of one grid or list of anchors; `first` of them belong to other heads."""

    parts: dict[str, Columns]
    first: int
    count: int
    columns: int
    stride: float


class ResolvedBoxes:
    """A description, resolved against a network.

    Attributes:
        parts: what each key of the description names, for each tensor or grid.
        prior: what offsets and distances are from: grid, anchors, or nothing ("").
        anchors: centre and size of each in pixels, where they are the prior.
        heads: where the candidates lie.

    Raises:
        MdlcError: the description does not fit the network's outputs.
    """

    def __init__(self, spec: BoxFields, network: Network) -> None:
        self.spec = spec
        self.network = network
        needs_prior = spec.form in ("distance", "offset") or (
            spec.keypoints is not None and spec.keypoint_form == "offset"
        )
        self.prior = ("anchors" if spec.anchors is not None else "grid") if needs_prior else ""
        self.parts = {
            key: self._columns(key, value)
            for key in _PARTS
            if (value := getattr(spec, key)) is not None
        }
        self.anchors = self._anchors()
        self.heads = self._heads()
        self._check()

    def _columns(self, key: str, value: str | Sequence[str]) -> list[Columns]:
        texts = [value] if isinstance(value, str) else list(value)
        return [parse_columns(t, self.network.outputs, f"[answer] {key}") for t in texts]

    def _anchors(self) -> Array | None:
        spec = self.spec
        if self.prior != "anchors":
            return None
        if isinstance(spec.anchors, str):
            return read_anchors(Path(spec.anchors), "[answer] anchors")
        assert spec.anchors is not None
        return blazeface(self.network.height, self.network.width, spec.anchors)

    def _heads(self) -> list[Head]:
        """One for each tensor, or for each grid where all grids lie in one tensor."""
        lengths = {key: len(columns) for key, columns in self.parts.items()}
        count = max(lengths.values())
        for key, length in lengths.items():
            if length != count:
                raise MdlcError(
                    f"{length} tensors, where there are {count} of others",
                    node=f"[answer] {key}",
                    hint="name one for each grid",
                )
        for number_, first in enumerate(self.parts["scores"]):
            for key, columns in self.parts.items():
                if columns[number_].candidates != first.candidates:
                    raise MdlcError(
                        f"{columns[number_].port.name} has {columns[number_].candidates} "
                        f"candidates and {first.port.name} has {first.candidates}",
                        node=f"[answer] {key}",
                        hint="say which axis the attributes lie along, as in output0[4:84,:]",
                    )
        parts = [{key: c[n] for key, c in self.parts.items()} for n in range(count)]
        if self.prior == "anchors":
            assert self.anchors is not None
            total = sum(p["scores"].candidates for p in parts)
            if len(self.anchors) != total:
                raise MdlcError(
                    f"there are {len(self.anchors)} anchors and {total} candidates",
                    node="[answer] anchors",
                    hint="check the strides or the file",
                )
        if self.prior != "grid":
            return [Head(p, 0, p["scores"].candidates, 1, 1.0) for p in parts]
        return self._grids(parts)

    def _grids(self, parts: list[dict[str, Columns]]) -> list[Head]:
        """Heads with the grid that each one's candidates lie in."""
        sizes = []
        for stride in self.spec.strides:
            rows = math.ceil(self.network.height / stride)
            sizes.append((rows, math.ceil(self.network.width / stride)))
        counts = [p["scores"].candidates for p in parts]
        cells = [rows * columns for rows, columns in sizes]
        if len(parts) == 1 and sum(cells) == counts[0]:
            firsts = np.cumsum([0, *cells[:-1]]).tolist()
            return [
                Head(parts[0], first, count, size[1], stride)
                for first, count, size, stride in zip(
                    firsts, cells, sizes, self.spec.strides, strict=True
                )
            ]
        if cells != counts:
            raise MdlcError(
                f"the strides {list(self.spec.strides)} give grids of {cells} cells on a picture "
                f"of {self.network.height}x{self.network.width}, the outputs have {counts}",
                node="[answer] strides",
                hint="name the stride of every grid, in the order of the outputs",
            )
        return [
            Head(p, 0, c, size[1], stride)
            for p, c, size, stride in zip(parts, counts, sizes, self.spec.strides, strict=True)
        ]

    def _check(self) -> None:
        spec = self.spec
        wanted = {"boxes": (4 if spec.sizes is None else 2) * spec.bins, "sizes": 2}
        wanted |= {"objectness": 1, "label": 1, "angle": 1}
        for key, count in wanted.items():
            for columns in self.parts.get(key, ()):
                if columns.count != count:
                    raise MdlcError(
                        f"{columns.port.name} gives {columns.count} numbers a candidate",
                        node=f"[answer] {key}",
                        hint=f"slice {count} of them, as in output0[0:{count},:]",
                    )
        for key in ("scores", "keypoints", "coefficients"):
            if len({columns.count for columns in self.parts.get(key, ())}) > 1:
                raise MdlcError(
                    "the outputs differ in their numbers a candidate", node=f"[answer] {key}"
                )
        if self.points and self.parts["keypoints"][0].count % spec.keypoint_values:
            raise MdlcError(
                f"{self.parts['keypoints'][0].count} numbers are not points of "
                f"{spec.keypoint_values}",
                node="[answer] keypoints",
                hint="set keypoint-values to 2 or 3",
            )
        if spec.peaks and (self.prior == "anchors" or any(h.columns < 2 for h in self.heads)):
            raise MdlcError(
                "peaks are found on grids, and there are none",
                node="[answer] peaks",
                hint="name the strides of the maps",
            )
        if spec.background is not None and spec.score_activation != "softmax":
            raise MdlcError(
                "a background is left out of a softmax only",
                node="[answer] background",
                hint="slice the other classes, as in scores[:,1:]",
            )

    @property
    def classes(self) -> int:
        """Scores a candidate."""
        return self.parts["scores"][0].count

    @property
    def points(self) -> int:
        """Key points a box."""
        columns = self.parts.get("keypoints")
        return columns[0].count // self.spec.keypoint_values if columns else 0
