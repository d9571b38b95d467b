"""Key points: numbers that are points already, or the largest value of a map for each."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mdlc.codegen.answer.checks import between, one_of
from mdlc.codegen.answer.code import AnswerCode, Network, argument_of, factor, text
from mdlc.codegen.answer.columns import Output, find_port, strides
from mdlc.codegen.tiles.formula import literal
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.types import DType, Layout

THIRDS = ("none", "score", "depth")
# The lines of COCO's people (its annotations' field skeleton, numbered from 0).
COCO = "15-13 13-11 16-14 14-12 11-12 5-11 6-12 5-6 5-7 6-8 7-9 8-10 1-2 0-1 0-2 1-3 2-4 3-5 4-6"


def skeleton_lines(skeleton: str) -> tuple[tuple[int, int], ...]:
    """The points that a line joins, by number: of coco, none, or a text such as 0-1 1-2.

    Raises:
        MdlcError: it is no such list.
    """
    found = []
    for word in {"none": "", "coco": COCO}.get(skeleton, skeleton).split():
        one, _, two = word.partition("-")
        if not (one.isdecimal() and two.isdecimal()):
            raise MdlcError(
                f"{word!r} is not two numbers of points",
                node="[answer] skeleton",
                hint="write lines as 0-1 1-2, or coco",
            )
        found.append((int(one), int(two)))
    return tuple(found)


def _as_in_onnx(port: Output) -> bool:
    """Whether the elements lie in the order of the model's own tensor."""
    shape = port.type.shape
    return port.type.layout is Layout.PLAIN or 1 in (shape[1], math.prod(shape[2:]))


@dataclass(frozen=True)
class Keypoints:
    """How points are read.

    Attributes:
        points: the output that has them one after the other; maps: or the output with a heat map
            for each, 1xKxHxW.
        values: numbers a point; third: what the third is.
        order: xy or yx; unit: pixel or picture (0 to 1).
        activation: of scores.
        refine: quarter: a map's peak is moved a quarter of a cell to its larger neighbour.
        cell: where in a cell of a map its point lies, 0 or 0.5.
        skeleton: points that a line joins, as 0-1 1-2; coco: those of its people's 17; or none.
    """

    points: str | None = None
    maps: str | None = None
    values: int = 2
    third: str = "none"
    order: str = "xy"
    unit: str = "pixel"
    activation: str = "none"
    refine: str = "none"
    cell: float = 0.0
    skeleton: str = "none"

    def __post_init__(self) -> None:
        one_of(self, "third", THIRDS)
        one_of(self, "order", ("xy", "yx"))
        one_of(self, "unit", ("pixel", "picture"))
        one_of(self, "activation", ("none", "sigmoid"))
        one_of(self, "refine", ("none", "quarter"))
        between(self, "values", 2, 3)
        between(self, "cell", 0.0, 1.0)
        _ = skeleton_lines(self.skeleton)
        if (self.points is None) == (self.maps is None):
            raise MdlcError(
                "keypoints are read from points or from maps",
                node="[answer]",
                hint="name one output, as points or as maps",
            )
        if self.third != "none" and self.points is not None and self.values != 3:
            raise MdlcError(
                f"there is no third number for a {self.third}",
                node="[answer] third",
                hint="set values to 3",
            )

    def code(self, network: Network) -> AnswerCode:
        """The answer's part of the class.

        Raises:
            MdlcError: the description does not fit the network's outputs.
        """
        key = "points" if self.points is not None else "maps"
        port = find_port(str(getattr(self, key)), network.outputs, f"[answer] {key}")
        if port.type.dtype is not DType.F32:
            raise MdlcError(
                f"{port.name} has elements of type {port.type.dtype.value}, not f32",
                node=f"[answer] {key}",
                hint="name an output of floats",
            )
        third = "score" if key == "maps" else self.third
        count, context = (
            self._points(port, network) if key == "points" else self._maps(port, network)
        )
        lines = skeleton_lines(self.skeleton)
        if any(point >= count for line in lines for point in line):
            raise MdlcError(
                f"joins points beyond the {count} that there are",
                node="[answer] skeleton",
                hint=f"number points from 0 to {count - 1}",
            )
        third = "" if third == "none" else third
        fields = [("x", "<f4"), ("y", "<f4"), *([(third, "<f4")] if third else [])]
        return AnswerCode(
            "Keypoints",
            text("keypoints_struct.j2", third=third, count=count, lines=lines),
            text(
                "keypoints.j2",
                name=network.name,
                argument=argument_of(port),
                maps=key == "maps",
                third=third,
                refine=self.refine,
                start="",
                score="1.0F / (1.0F + std::exp(-raw))" if self.activation == "sigmoid" else "raw",
                **context,
            ),
            (port,),
            frozenset({"cmath"} if self.activation == "sigmoid" and third == "score" else ()),
            np.dtype([("point", fields, (count,))]),
            f"{count} points",
            placed=True,
            elements={"point": "Keypoint"},
            shown=(
                "for (const {name}::Keypoint& point : answer) "
                'std::printf("%.1f %.1f\\n", static_cast<double>(point.x), '
                "static_cast<double>(point.y));",
            ),
        )

    def _points(self, port: Output, network: Network) -> tuple[int, dict[str, object]]:
        size = port.type.size
        if size % self.values or not port.view.dense or not _as_in_onnx(port):
            raise MdlcError(
                f"{port.name} has {size} numbers, which are not points of {self.values}",
                node="[answer] points",
                hint="set values to 2 or 3",
            )
        width, height = (network.width, network.height) if self.unit == "picture" else (1, 1)
        return size // self.values, {
            "point_times": factor(self.values),
            "x_at": self.order.index("x"),
            "y_at": self.order.index("y"),
            "unit_x": "" if width == 1 else f" * {literal(width)}",
            "unit_y": "" if height == 1 else f" * {literal(height)}",
        }

    def _maps(self, port: Output, network: Network) -> tuple[int, dict[str, object]]:
        if port.type.rank != 4 or port.type.shape[0] != 1:
            raise MdlcError(
                f"{port.name} has the shape {'x'.join(map(str, port.type.shape))}, not 1xKxHxW",
                node="[answer] maps",
                hint="name the output of heat maps",
            )
        _, count, rows, columns = port.type.shape
        _, map_step, row_step, column_step = strides(port)
        return count, {
            "rows": rows,
            "columns": columns,
            "row_step": row_step,
            "column_times": factor(column_step),
            "map_times": factor(map_step),
            "cell": f" + {literal(self.cell)}" if self.cell else "",
            "unit_x": literal(network.width / columns),
            "unit_y": literal(network.height / rows),
        }
