"""Metrics of labelled pictures: what is kept of each, and what all of it comes to.

A metric reads its labels and says what does not fit before anything is computed. Of each picture it
keeps a record that JSON can hold, so that a run can be interrupted, continued and merged.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from mdlc.answered import answer_of, outputs_of
from mdlc.api import CompiledModel
from mdlc.checks.accuracy import class_map
from mdlc.codegen.cpp.emit import answer_code
from mdlc.codegen.run.executable import Executable
from mdlc.compiler.errors import MdlcError

Record = Any
LABELS = "--data-labels"


class Metric(Protocol):
    """How well answers are."""

    def check(self, compiled: CompiledModel, pictures: Sequence[Path]) -> None:
        """Says what does not fit before work begins.

        Raises:
            MdlcError: the class does not answer so, or a picture has no label, or a wrong one.
        """

    def record(self, compiled: CompiledModel, program: Executable, picture: Path) -> Record:
        """What is kept of a picture."""

    def total(self, records: Mapping[str, Record]) -> dict[str, float]:
        """Figures of all pictures, by their names."""


@dataclass(frozen=True)
class Top1:
    """Share of pictures whose class is the best, or among the best five.

    Attributes:
        classes: of the pictures, by file; offset: added to them (1 where class 0 is background).
    """

    classes: Mapping[str, int]
    offset: int = 0

    def check(self, compiled: CompiledModel, pictures: Sequence[Path]) -> None:
        """See Metric."""
        _labelled(self.classes, pictures)
        count = max((port.type.size for port in compiled.plan.outputs[:1]), default=0)
        for picture in pictures:
            if not 0 <= self.classes[picture.name] + self.offset < count:
                raise MdlcError(
                    f"{picture.name} is of class {self.classes[picture.name]}, and the network has "
                    f"{count}",
                    node=LABELS,
                    hint="--label-offset 1 is for networks whose class 0 is the background",
                )

    def record(self, compiled: CompiledModel, program: Executable, picture: Path) -> Record:
        """The place of the right class, from 0."""
        scores = next(iter(outputs_of(compiled, program, picture).values())).reshape(-1)
        right = self.classes[picture.name] + self.offset
        order = np.argsort(-scores, kind="stable")
        return int(np.nonzero(order == right)[0][0])

    def total(self, records: Mapping[str, Record]) -> dict[str, float]:
        """top1 and top5."""
        places = np.array(list(records.values()))
        return {"top1": float(np.mean(places == 0)), "top5": float(np.mean(places < 5))}


@dataclass(frozen=True)
class MeanIou:
    """Intersection over union of masks, the mean of classes; 255 is left out.

    Attributes:
        folder: a mask for each picture, of its name.
    """

    folder: Path

    def check(self, compiled: CompiledModel, pictures: Sequence[Path]) -> None:
        """See Metric."""
        _labelled({p.name: 0 for p in pictures if self._mask(p) is not None}, pictures)

    def _mask(self, picture: Path) -> Path | None:
        return next((p for p in sorted(self.folder.glob(f"{picture.stem}.*"))), None)

    def record(self, compiled: CompiledModel, program: Executable, picture: Path) -> Record:
        """Pixels shared and pixels of either, by class."""
        path = self._mask(picture)
        assert path is not None
        truth = np.asarray(Image.open(path))
        answer = compiled.plan.answer
        if answer is not None and answer.kind == "mask":
            found, _ = answer_of(compiled, program, picture)
        else:
            found = class_map(next(iter(outputs_of(compiled, program, picture).values())))
        flat = np.asarray(found, np.uint8).reshape(np.shape(found)[-2:])
        size = (truth.shape[1], truth.shape[0])
        flat = np.asarray(Image.fromarray(flat).resize(size, Image.Resampling.NEAREST))
        known = truth != 255
        return {
            str(label): [
                int(((truth == label) & (flat == label) & known).sum()),
                int((((truth == label) | (flat == label)) & known).sum()),
            ]
            for label in np.union1d(truth[known], flat[known]).tolist()
        }

    def total(self, records: Mapping[str, Record]) -> dict[str, float]:
        """miou over the classes of all pictures."""
        shared: dict[str, int] = {}
        either: dict[str, int] = {}
        for record in records.values():
            for label, (a, b) in record.items():
                shared[label] = shared.get(label, 0) + a
                either[label] = either.get(label, 0) + b
        return {"miou": float(np.mean([shared[k] / either[k] for k in either]))}


@dataclass(frozen=True)
class Cer:
    """Wrong characters in parts of those that there are (edit distance).

    Attributes:
        texts: of the pictures, by file.
    """

    texts: Mapping[str, str]

    def check(self, compiled: CompiledModel, pictures: Sequence[Path]) -> None:
        """See Metric."""
        _answers(compiled, "cer", "text")
        _labelled(self.texts, pictures)

    def record(self, compiled: CompiledModel, program: Executable, picture: Path) -> Record:
        """Edits, characters and what was read."""
        value, _ = answer_of(compiled, program, picture)
        read = bytes(value["utf8"])[: int(value["length"])].decode("utf-8", "replace")
        truth = self.texts[picture.name]
        return [edits(read, truth), len(truth), read]

    def total(self, records: Mapping[str, Record]) -> dict[str, float]:
        """cer, and the share of pictures that were read without a fault."""
        wrong = sum(record[0] for record in records.values())
        length = sum(record[1] for record in records.values())
        exact = float(np.mean([record[0] == 0 for record in records.values()]))
        return {"cer": wrong / max(length, 1), "exact": exact}


def edits(a: str, b: str) -> int:
    """Levenshtein's distance: characters that are to be put in, taken out or changed."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


@dataclass(frozen=True)
class Coco:
    """Average precision of boxes (map) or key points (oks), as COCO evaluates them.

    Attributes:
        kind: bbox or keypoints. path: annotations in COCO's JSON; table: what it holds.
    """

    kind: str
    path: Path
    table: Mapping[str, Any] = field(repr=False)

    def check(self, compiled: CompiledModel, pictures: Sequence[Path]) -> None:
        """See Metric."""
        _answers(compiled, "map" if self.kind == "bbox" else "oks", "boxes")
        code = answer_code(compiled.plan)
        assert code is not None
        names = code.dtype["box"].base.names or ()
        if self.kind == "keypoints" and "keypoints" not in names:
            raise MdlcError(
                "the network's boxes have no key points",
                node="--metric oks",
                hint="choose a decoder that has them",
            )
        if self.kind == "bbox" and code.classes not in (0, len(self._categories())):
            raise MdlcError(
                f"has {len(self._categories())} categories, and the network tells {code.classes} "
                "classes apart",
                node=f"{LABELS} {self.path.name}",
                hint="give annotations with the network's classes, in the order of their ids",
            )
        _labelled(self._images(), pictures)

    def _categories(self) -> list[int]:
        return sorted(each["id"] for each in self.table["categories"])

    def _images(self) -> dict[str, int]:
        return {Path(each["file_name"]).name: each["id"] for each in self.table["images"]}

    def record(self, compiled: CompiledModel, program: Executable, picture: Path) -> Record:
        """Label, box (x, y, width, height), score, and key points of what was found."""
        value, (sx, sy) = answer_of(compiled, program, picture)
        found = []
        for box in value["box"][: value["count"]]:
            left, top = float(box["left"]) * sx, float(box["top"]) * sy
            right, bottom = float(box["right"]) * sx, float(box["bottom"]) * sy
            entry = [int(box["label"]), [left, top, right - left, bottom - top]]
            entry.append(float(box["score"]))
            if self.kind == "keypoints":
                points = box["keypoints"]
                entry.append(
                    [v for p in points for v in (float(p["x"]) * sx, float(p["y"]) * sy, 1)]
                )
            found.append(entry)
        return found

    def total(self, records: Mapping[str, Record]) -> dict[str, float]:
        """Average precision over overlaps of 0.5 to 0.95, and at 0.5 and 0.75."""
        import contextlib
        import io

        try:
            from pycocotools.coco import COCO
            from pycocotools.cocoeval import COCOeval
        except ImportError:
            raise MdlcError(
                "needs pycocotools, which is not installed",
                node="--metric",
                hint="pip install 'mdlc[accuracy]'",
            ) from None
        images, categories = self._images(), self._categories()
        results = []
        for name, record in records.items():
            for label, box, score, *points in record:
                if label >= len(categories):
                    continue
                result = {"image_id": images[name], "category_id": categories[label]}
                result |= {"bbox": box, "score": score}
                results.append(result | ({"keypoints": points[0]} if points else {}))
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO()
            truth.dataset = json.loads(json.dumps(self.table))
            truth.createIndex()
            if not results:
                return {"ap": 0.0, "ap50": 0.0, "ap75": 0.0}
            evaluation = COCOeval(truth, truth.loadRes(results), self.kind)
            evaluation.params.imgIds = sorted(images[name] for name in records)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return {name: float(evaluation.stats[i]) for i, name in enumerate(("ap", "ap50", "ap75"))}


METRICS = ("top1", "map", "miou", "oks", "cer")
# What COCO's evaluation reads of each entry of its lists.
_COCO: Mapping[str, Mapping[str, type[Any] | tuple[type[Any], ...]]] = {
    "images": {"id": int, "file_name": str},
    "annotations": {
        "id": int, "image_id": int, "category_id": int, "bbox": list, "area": (int, float),
        "iscrowd": int,
    },
    "categories": {"id": int},
}  # fmt: skip


def read_metric(name: str, labels: Path, offset: int = 0) -> Metric:
    """A metric with its labels.

    Args:
        name: one of METRICS.
        labels: top1: a CSV file with columns `file` and `class`; cer: with `file` and `text`; map
            and oks: annotations in COCO's JSON; miou: a folder of masks.

    Raises:
        MdlcError: the labels cannot be read, or are not of that kind.
    """
    if not labels.exists():
        raise MdlcError("there is no such file", node=f"{LABELS} {labels}", hint="check the path")
    if labels.is_dir() != (name == "miou"):
        raise MdlcError(
            "is not a folder of masks" if name == "miou" else "is a folder",
            node=f"{LABELS} {labels}",
            hint="miou takes a folder of masks, the other metrics a file",
        )
    if name == "miou":
        return MeanIou(labels)
    if name in ("map", "oks"):
        return Coco("bbox" if name == "map" else "keypoints", labels, _annotations(labels))
    column = "class" if name == "top1" else "text"
    rows = _column(labels, column)
    if name == "cer":
        return Cer(rows)
    try:
        return Top1({file: int(text) for file, text in rows.items()}, offset)
    except ValueError:
        raise MdlcError(
            "has a class that is no whole number", node=f"{LABELS} {labels}", hint="number them"
        ) from None


def _column(path: Path, column: str) -> dict[str, str]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if not {"file", column} <= set(reader.fieldnames or ()):
                raise MdlcError(
                    f"has no columns file and {column}",
                    node=f"{LABELS} {path}",
                    hint=f"write file,{column} in its first line",
                )
            rows = {row["file"]: row[column] for row in reader}
            if None not in rows and None not in rows.values():
                return rows
            raise MdlcError("has a line that ends too early", node=f"{LABELS} {path}",
                            hint=f"write file,{column} in every line")  # fmt: skip
    except (OSError, UnicodeDecodeError, csv.Error):
        raise MdlcError("is not a readable CSV file", node=f"{LABELS} {path}") from None


def _annotations(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError):
        table = None
    if not isinstance(table, dict) or not all(isinstance(table.get(key), list) for key in _COCO):
        raise MdlcError(
            "is not a file of COCO's annotations",
            node=f"{LABELS} {path}",
            hint=f"give JSON with the lists {', '.join(_COCO)}",
        )
    for key, wanted in _COCO.items():
        for place, entry in enumerate(table[key], 1):
            for word, kind in wanted.items():
                if not isinstance(entry, dict) or not isinstance(entry.get(word), kind):
                    raise MdlcError(
                        f"entry {place} of {key} has no proper {word}",
                        node=f"{LABELS} {path}",
                        hint="give annotations as COCO has them",
                    )
    return table


def _labelled(labels: Mapping[str, Any], pictures: Sequence[Path]) -> None:
    missing = [picture.name for picture in pictures if picture.name not in labels]
    if missing:
        raise MdlcError(
            f"{len(missing)} of {len(pictures)} pictures have no label; the first is {missing[0]}",
            node=LABELS,
            hint="label every picture of --data",
        )


def _answers(compiled: CompiledModel, metric: str, kind: str) -> None:
    answer = compiled.plan.answer
    if answer is None or answer.kind != kind:
        raise MdlcError(
            f"needs a class that answers with {kind}",
            node=f"--metric {metric}",
            hint=f"add --answer or a recipe with {kind}",
        )
