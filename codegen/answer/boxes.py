"""Boxes: decoders of detectors, described by data.

All published decoders are one program: find the candidates whose score passes a threshold, make a
box of each from its numbers and its prior (a cell of a grid or an anchor), and drop those that
overlap a better one. What differs is in `BoxFields`; `presets.py` has the values of
known detectors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mdlc.codegen.answer.box_fields import CENTRES, SIZES, BoxFields
from mdlc.codegen.answer.box_heads import Head, ResolvedBoxes
from mdlc.codegen.answer.code import AnswerCode, Network, argument_of, factor, text
from mdlc.codegen.answer.columns import Columns, find_port, strides
from mdlc.codegen.tiles.formula import literal
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.types import TensorType

# Scores of a class that lie side by side are compared this many at once.
_BLOCK = 168
_TOGETHER = 20
_LANES = 8


@dataclass(frozen=True)
class Boxes(BoxFields):
    """How boxes are decoded; see BoxFields."""

    def code(self, network: Network) -> AnswerCode:
        """The answer's part of the class.

        Raises:
            MdlcError: the description does not fit the network's outputs.
        """
        return _Decoder(self, network).code()

    def scratch(self, outputs: Mapping[str, TensorType]) -> int:
        """Bytes of working memory in which a mask is made: a number for each cell."""
        kind = outputs.get(self.prototypes) if self.prototypes else None
        return 4 * math.prod(kind.shape[2:]) if kind is not None and kind.rank == 4 else 0


class _Decoder(ResolvedBoxes):
    """The text of a decoder."""

    def code(self) -> AnswerCode:
        """See Boxes.code."""
        spec, network = self.spec, self.network
        steps = {(c.candidate_step, c.attribute_step) for c in self.parts["scores"]}
        plain = spec.score_activation != "softmax" and spec.label is None
        across = all(step == 1 for step, _ in steps) and plain and not spec.objectness
        block = min([_BLOCK, *(head.count // 4 * 4 for head in self.heads)])
        across = across and block > 0
        along = all(step == 1 for _, step in steps) and plain and self.classes >= _LANES
        outputs = {argument_of(c.port): c.port for cs in self.parts.values() for c in cs}
        masks = self._masks()
        together = _together(self.classes)
        floor = spec.threshold ** (1 / spec.score_power)
        source = text(
            "boxes.j2",
            name=network.name,
            classes=self.classes,
            candidates=spec.candidates,
            objectness=self._activated("raw_objectness", spec.objectness_activation)
            if spec.objectness
            else "",
            label=spec.label is not None,
            angle=spec.angle is not None,
            peaks=spec.peaks,
            sizes=spec.sizes is not None,
            masks=masks,
            clip=spec.clip,
            points=self.points,
            point_values=spec.keypoint_values,
            anchors=self._anchor_tables(),
            functions=self._functions(),
            score=self._activated("raw", spec.score_activation),
            combined=self._combined(),
            softmax=spec.score_activation == "softmax",
            background=spec.background,
            label_of_k=_label(spec.background),
            multi_label=spec.multi_label,
            blocks=across,
            searched=(across or along) and not spec.multi_label and self.classes > 1,
            rows=along and not across,
            block=block,
            together=together,
            largest=_largest([f"OrderOf(s{n} + j)" for n in range(together)]),
            integers=_inverse(floor, spec.score_activation) > 0,
            lanes=_LANES,
            prior=self.prior,
            cell=f" + {literal(spec.cell)}" if spec.cell else "",
            shift=f" + {literal(spec.shift)}".replace("+ -", "- ") if spec.shift else "",
            form=spec.form,
            bins=spec.bins,
            unit_x=self._unit(spec.unit, 0),
            unit_y=self._unit(spec.unit, 1),
            width_of="z[0]" if spec.sizes else "b[2 * head.side_step]",
            height_of="z[head.size_step]" if spec.sizes else "b[3 * head.side_step]",
            centre_of=CENTRES[spec.centre_activation],
            size_of=self._size(),
            centre_unit=self._scaled(
                self._unit(self._offset_unit, 0),
                self._unit(self._offset_unit, 1),
                float(self.spec.variance[0]),
            ),
            size_unit=self._scaled(
                self._unit(spec.size_unit or self._offset_unit, 0),
                self._unit(spec.size_unit or self._offset_unit, 1),
                1.0,
            ),
            point_x=self._point("x", "p[0]"),
            point_y=self._point("y", "p[head.coordinate_step]"),
            point_score=self._activated("p[2 * head.coordinate_step]", spec.keypoint_activation),
            nms=spec.suppression,
            class_wise=spec.class_wise,
            sigma=literal(spec.sigma),
            arguments=list(outputs),
            heads=[self._head_row(n, head) for n, head in enumerate(self.heads)],
            min_score=literal(spec.threshold),
            min_raw=literal(_below(_inverse(floor, spec.score_activation))),
            min_objectness=literal(
                _below(
                    _inverse(
                        spec.threshold ** (1 / spec.objectness_power), spec.objectness_activation
                    )
                )
            ),
            max_overlap=literal(spec.overlap),
        )
        return AnswerCode(
            "Boxes",
            text(
                "boxes_struct.j2",
                angle=spec.angle is not None,
                masks=masks,
                points=self.points,
                scored=spec.keypoint_values == 3,
                max=spec.max,
            ),
            source,
            tuple(outputs.values()),
            frozenset({"algorithm", "cmath", "cstddef", "cstdint", "cstring"}),
            self._dtype(),
            self._manual(),
            placed=True,
            elements={"box": "Box", "corner": "Corner", "keypoints": "Keypoint"},
            sized=spec.clip or bool(masks),
            masks=masks["port"] if masks else None,
            scratch=masks["nbytes"] if masks else 0,
            classes=0 if spec.label is not None else self.classes - (spec.background is not None),
            shown=(
                "for (const {name}::Box& box : answer) "
                'std::printf("class %d: %.2f at %.1f %.1f\\n", box.label, '
                "static_cast<double>(box.score), static_cast<double>(box.left), "
                "static_cast<double>(box.top));",
            ),
        )

    def _masks(self) -> dict[str, Any]:
        """What masks are made of; empty where boxes have none."""
        spec = self.spec
        if spec.prototypes is None:
            return {}
        port = find_port(spec.prototypes, self.network.outputs, "[answer] prototypes")
        count = self.parts["coefficients"][0].count
        if port.type.rank != 4 or port.type.shape[:2] != (1, count):
            raise MdlcError(
                f"{port.name} has the shape {'x'.join(map(str, port.type.shape))}, and there are "
                f"{count} coefficients",
                node="[answer] prototypes",
                hint=f"name the output 1x{count}xHxW",
            )
        _, map_step, row_step, column_step = strides(port)
        rows, columns = port.type.shape[2:]
        return {
            "port": port,
            "count": count,
            "rows": rows,
            "columns": columns,
            "map_times": factor(map_step),
            "row_step": row_step,
            "column_times": factor(column_step),
            "scale_x": literal(columns / self.network.width),
            "scale_y": literal(rows / self.network.height),
            "nbytes": 4 * rows * columns,
        }

    def _anchor_tables(self) -> list[list[list[str]]]:
        if self.anchors is None:
            return []
        tables, first = [], 0
        for head in self.heads:
            rows = self.anchors[first : first + head.count]
            tables.append([[literal(value) for value in row] for row in rows])
            first += head.count
        return tables

    def _functions(self) -> set[str]:
        spec = self.spec
        every = (
            spec.score_activation,
            spec.objectness_activation if spec.objectness else "",
            spec.keypoint_activation if self.points else "",
            *((spec.centre_activation, spec.size_activation) if spec.form == "offset" else ()),
        )
        return {"sigmoid"} if {"sigmoid", "yolov5"} & set(every) else set()

    def _activated(self, value: str, activation: str) -> str:
        return f"Sigmoid({value})" if activation == "sigmoid" else value

    def _combined(self) -> str:
        spec = self.spec
        if not spec.objectness:
            return _power("score", spec.score_power)
        if spec.score_power == spec.objectness_power:
            return _power("score * objectness", spec.score_power)
        return (
            f"{_power('score', spec.score_power)} * {_power('objectness', spec.objectness_power)}"
        )

    @property
    def _offset_unit(self) -> str:
        return self.spec.unit if self.spec.unit != "pixel" or self.prior != "grid" else "stride"

    def _size(self) -> str:
        spec = self.spec
        factor = float(spec.variance[1])
        inner = "{}" if factor == 1.0 else "{} * " + literal(factor)
        return SIZES[spec.size_activation].format(inner)

    def _unit(self, unit: str, axis: int) -> str:
        """Pixels of a number, along x (0) or y (1)."""
        network = self.network
        if unit == "picture":
            return literal((network.width, network.height)[axis])
        if unit == "stride":
            return "head.stride"
        if unit == "prior":
            return f"head.anchors[index][{2 + axis}]" if self.prior == "anchors" else "head.stride"
        return literal(1.0)

    @staticmethod
    def _scaled(x: str, y: str, factor: float) -> tuple[str, str]:
        if factor == 1.0:
            return x, y
        return f"{literal(factor)} * {x}", f"{literal(factor)} * {y}"

    def _point(self, axis: str, value: str) -> str:
        spec = self.spec
        number_ = 0 if axis == "x" else 1
        if spec.keypoint_form == "absolute":
            return _times(value, self._unit(spec.unit, number_))
        return f"{axis} + {_times(value, self._unit(self._offset_unit, number_))}"

    def _head_row(self, number_: int, head: Head) -> list[str]:
        def pointer(columns: Columns) -> str:
            start = columns.start + head.first * columns.candidate_step
            name = argument_of(columns.port)
            return f"{name} + {start}" if start else name

        scores, boxes = head.parts["scores"], head.parts["boxes"]
        row = [str(head.count), str(head.columns), literal(head.stride)]
        row += [pointer(scores), str(scores.candidate_step), str(scores.attribute_step)]
        row += [pointer(boxes), str(boxes.candidate_step), str(boxes.attribute_step)]
        for key in ("sizes", "coefficients"):
            if key in head.parts:
                part = head.parts[key]
                row += [pointer(part), str(part.candidate_step), str(part.attribute_step)]
        for key in ("objectness", "label", "angle"):
            if key in head.parts:
                row += [pointer(head.parts[key]), str(head.parts[key].candidate_step)]
        if "keypoints" in head.parts:
            points = head.parts["keypoints"]
            row += [pointer(points), str(points.candidate_step), str(points.attribute_step)]
        if self.anchors is not None:
            row.append("kAnchors" + (str(number_) if len(self.heads) > 1 else ""))
        return row

    def _dtype(self) -> np.dtype[np.void]:
        fields: list[tuple[object, ...]] = [
            (side, "<f4") for side in ("left", "top", "right", "bottom", "score")
        ]
        fields.append(("label", "<i4"))
        if self.spec.angle is not None:
            fields.append(("corner", [("x", "<f4"), ("y", "<f4")], (4,)))
        if "coefficients" in self.parts:
            fields.append(("coefficients", "<f4", (self.parts["coefficients"][0].count,)))
        if self.points:
            point = [("x", "<f4"), ("y", "<f4")]
            point += [("score", "<f4")] if self.spec.keypoint_values == 3 else []
            fields.append(("keypoints", point, (self.points,)))
        drawn = [("transform", "<f4", (6,)), ("picture", "<i4", (2,))]
        every = [("count", "<i4"), ("box", fields, (self.spec.max,))]
        return np.dtype([*every, *(drawn if "coefficients" in self.parts else [])])

    def _manual(self) -> str:
        spec = self.spec
        kept = {
            "hard": f"of an overlap above {spec.overlap:g} the better",
            "soft": "soft",
            "weighted": f"of an overlap above {spec.overlap:g} the mean",
            "none": "none",
        }
        return (
            f"up to {spec.max} boxes with a score above {spec.threshold:g}, the best first; "
            f"suppression: {kept[spec.suppression]}"
        )


def _together(classes: int) -> int:
    """Classes that are compared at once: the most that their number is a multiple of."""
    fitting = [n for n in range(4, _TOGETHER + 1) if classes % n == 0]
    return max(fitting, default=min(classes, _TOGETHER))


def _largest(values: list[str]) -> str:
    """The largest of some values, by pairs of pairs."""
    if len(values) == 1:
        return values[0]
    half = len(values) // 2
    return f"Larger({_largest(values[:half])}, {_largest(values[half:])})"


def _times(value: str, unit: str) -> str:
    return value if unit == literal(1.0) else f"{value} * {unit}"


def _power(value: str, power: float) -> str:
    if power == 1.0:
        return value
    return f"std::sqrt({value})" if power == 0.5 else f"std::pow({value}, {literal(power)})"


def _label(background: int | None) -> str:
    if background is None:
        return "k"
    return "k - 1" if background == 0 else f"(k > {background} ? k - 1 : k)"


def _inverse(value: float, activation: str) -> float:
    """The number that an activation makes `value` of."""
    if activation != "sigmoid":
        return value
    value = min(max(value, 1e-7), 1 - 1e-7)
    return math.log(value / (1 - value))


def _below(value: float) -> float:
    """A little less, so that rounding loses no candidate before its score is computed."""
    return value - 1e-4 * max(abs(value), 1e-2)
