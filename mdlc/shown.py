"""An answer as people read it: lines of text, and drawn on the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from mdlc.compiler.types import Array

_COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#000075")
_MAX_POINTS = 8  # more key points than this are drawn and not listed


@dataclass(frozen=True)
class Shown:
    """An answer and what it is about.

    Attributes:
        kind: see codegen.answer.answer.KINDS; value: as Executable.answer gives it.
        labels: names of the classes.
        scale: pixels of the picture for a pixel of the network's, along x and y.
        skeleton: of key points, those that a line joins.
    """

    kind: str
    value: Any
    labels: Sequence[str]
    scale: tuple[float, float] = (1.0, 1.0)
    skeleton: Sequence[tuple[int, int]] = ()

    def label(self, number: int) -> str:
        """A class's name, or its number where it has none."""
        return self.labels[number] if 0 <= number < len(self.labels) else f"class {number}"

    def lines(self) -> list[str]:
        """What was found, a line each."""
        lines: list[str] = getattr(self, f"_{self.kind}")()
        return lines

    def _classes(self) -> list[str]:
        found = self.value["item"][: self.value["count"]]
        return [f"{row['score']:10.4f}  {self.label(int(row['label']))}" for row in found]

    def _boxes(self) -> list[str]:
        count = int(self.value["count"])
        lines = [f"{count} {'box' if count == 1 else 'boxes'}"]
        for row in self.value["box"][:count]:
            left, top, right, bottom = (
                row[side] * self.scale[number % 2]
                for number, side in enumerate(("left", "top", "right", "bottom"))
            )
            lines.append(
                f"{row['score']:10.4f}  {self.label(int(row['label']))} from {left:.1f}, {top:.1f} "
                f"to {right:.1f}, {bottom:.1f}"
            )
        return lines

    def _keypoints(self) -> list[str]:
        points = self.value["point"]
        lines = [f"{len(points)} points"]
        if len(points) <= _MAX_POINTS:
            for x, y in self._places(points):
                lines.append(f"  {x:.1f}, {y:.1f}")
        return lines

    def _mask(self) -> list[str]:
        labels, counts = np.unique(self.value, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return [
            f"{100 * counts[i] / self.value.size:9.1f} %  {self.label(int(labels[i]))}"
            for i in order
        ]

    def _text(self) -> list[str]:
        text = bytes(self.value["utf8"])[: int(self.value["length"])].decode("utf-8", "replace")
        return [f"{self.value['score']:10.4f}  {text}"]

    def _quads(self) -> list[str]:
        found = self.value["quad"][: self.value["count"]]
        lines = [f"{len(found)} {'region' if len(found) == 1 else 'regions'}"]
        for row in found:
            corners = "; ".join(f"{x:.1f}, {y:.1f}" for x, y in self._places(row["corner"]))
            lines.append(f"{row['score']:10.4f}  {corners}")
        return lines

    def _embedding(self) -> list[str]:
        values = self.value["values"]
        first = ", ".join(f"{value:.4f}" for value in values[:8])
        return [f"{len(values)} values: {first}{' ...' if len(values) > 8 else ''}"]

    def _places(self, points: Array) -> list[tuple[float, float]]:
        return [
            (float(point["x"]) * self.scale[0], float(point["y"]) * self.scale[1])
            for point in points
        ]

    def drawn(self, picture: Image.Image) -> Image.Image:
        """The picture with what was found drawn on it; unchanged where that has no places."""
        image = picture.convert("RGB")
        if self.kind == "mask":
            return self._overlaid(image)
        pen = ImageDraw.Draw(image)
        width = max(2, round(max(image.size) / 250))
        if self.kind == "boxes":
            for row in self.value["box"][: self.value["count"]]:
                self._draw_box(pen, row, width)
        if self.kind == "quads":
            for row in self.value["quad"][: self.value["count"]]:
                pen.polygon(self._places(row["corner"]), outline=_COLOURS[0], width=width)
        if self.kind == "keypoints":
            places = self._places(self.value["point"])
            for one, two in self.skeleton:
                pen.line([places[one], places[two]], fill=_COLOURS[1], width=width)
            self._draw_points(pen, self.value["point"], width, _COLOURS[0])
        return image

    def _draw_box(self, pen: ImageDraw.ImageDraw, row: Any, width: int) -> None:
        label = int(row["label"])
        colour = _COLOURS[label % len(_COLOURS)]
        x, y = self.scale
        corners = [row["left"] * x, row["top"] * y, row["right"] * x, row["bottom"] * y]
        left, top, right, bottom = (float(value) for value in corners)
        if "corner" in (row.dtype.names or ()):
            pen.polygon(self._places(row["corner"]), outline=colour, width=width)
        else:
            pen.rectangle(
                [min(left, right), min(top, bottom), max(left, right), max(top, bottom)],
                outline=colour,
                width=width,
            )
        text = f"{self.label(label)} {row['score']:.2f}"
        spot = pen.textbbox((left + width, max(top, 0) + width), text, font_size=8 + 3 * width)
        pen.rectangle(spot, fill=colour)
        pen.text(spot[:2], text, fill="white", font_size=8 + 3 * width)
        if "keypoints" in (row.dtype.names or ()):
            self._draw_points(pen, row["keypoints"], width, colour)

    def _draw_points(
        self, pen: ImageDraw.ImageDraw, points: Array, width: int, colour: str
    ) -> None:
        for x, y in self._places(points):
            pen.ellipse([x - width, y - width, x + width, y + width], fill=colour)

    def _overlaid(self, image: Image.Image) -> Image.Image:
        """Each class but the first in a colour of its own, half through."""
        colours = np.zeros((256, 3), np.uint8)
        for number in range(1, 256):
            shade = _COLOURS[(number - 1) % len(_COLOURS)]
            colours[number] = [int(shade[i : i + 2], 16) for i in (1, 3, 5)]
        labels = Image.fromarray(self.value).resize(image.size, Image.Resampling.NEAREST)
        painted = Image.fromarray(colours[np.asarray(labels)])
        half = Image.blend(image, painted, 0.5)
        return Image.composite(half, image, labels.point(lambda number: 255 if number else 0))


def best_classes(
    values: Array, labels: Sequence[str] | None, count: int = 5
) -> tuple[str, list[dict[str, Any]]]:
    """The largest values of an output that looks like scores of classes, with probabilities.

    Scores that are probabilities already stay what they are; of others that leave the range of
    0 to 1, the softmax is taken.

    Returns:
        what the probabilities are, in words behind the output's name; and for each class its
        number, label, score, and probability (None where scores between 0 and 1 do not sum to 1,
        as those of classes that do not exclude each other).
    """
    flat = values.reshape(-1).astype(np.float64)
    best = np.argsort(-flat, kind="stable")[:count]
    inside = bool((flat >= -1e-6).all() and (flat <= 1 + 1e-6).all())
    shares: Array | None = None
    meaning = ""
    if inside and abs(flat.sum() - 1) < 1e-2:
        shares = flat
    elif not inside and np.isfinite(flat).all():
        powers = np.exp(flat - flat.max())
        shares, meaning = powers / powers.sum(), ", with its softmax"
    found = [
        {
            "class": int(i),
            "label": labels[i] if labels and i < len(labels) else f"class {i}",
            "score": float(flat[i]),
            "probability": None if shares is None else float(shares[i]),
        }
        for i in best
    ]
    return meaning, found


def class_line(found: dict[str, Any]) -> str:
    """A class as people read it: score, probability, name."""
    share = found["probability"]
    middle = "" if share is None else f"{100 * share:6.1f} %  "
    return f"{found['score']:10.4f}  {middle}{found['label']}"
