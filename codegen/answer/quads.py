"""Quadrilaterals: regions of text, found on the probability map of a text detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mdlc.codegen.answer.checks import between
from mdlc.codegen.answer.code import AnswerCode, Network, argument_of, factor, only_output, text
from mdlc.codegen.answer.columns import strides
from mdlc.codegen.tiles.formula import literal
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.types import DType, TensorType


@dataclass(frozen=True)
class Quads:
    """How regions are found: differentiable binarisation (Liao et al., 2020), as PP-OCR does.

    Pixels above `binary` that touch each other are a region, and the smallest turned rectangle
    around it is grown by area * unclip / perimeter on each side.

    Attributes:
        map: the output: probabilities 1x1xHxW.
        binary: of a pixel; threshold: of the mean probability inside the rectangle.
        unclip: how much regions are grown, as training shrank them.
        least: shortest side of a rectangle on the map before it is grown; 2 more behind that.
        max: most regions.
    """

    map: str | None = None
    binary: float = 0.3
    threshold: float = 0.6
    unclip: float = 1.5
    least: float = 3.0
    max: int = 100

    def __post_init__(self) -> None:
        between(self, "binary", 0.0, 1.0)
        between(self, "threshold", 0.0, 1.0)
        between(self, "unclip", 0.0, 10.0)
        between(self, "least", 1.0, 1000.0)
        between(self, "max", 1, 10_000)

    def scratch(self, outputs: Mapping[str, TensorType]) -> int:
        """Bytes of working memory: a number for each pixel of the map, and six for each row."""
        kind = outputs.get(self.map) if self.map else next(iter(outputs.values()))
        if kind is None or kind.rank != 4:
            return 0  # which `code` refuses
        _, _, rows, columns = kind.shape
        return 4 * (rows * columns + 6 * rows)

    def code(self, network: Network) -> AnswerCode:
        """The answer's part of the class.

        Raises:
            MdlcError: the description does not fit the network's outputs.
        """
        port = only_output(self.map, "map", network)
        shape, every = port.type.shape, strides(port)
        if len(shape) != 4 or shape[:2] != (1, 1) or port.type.dtype is not DType.F32:
            raise MdlcError(
                f"{port.name} is {port.type.dtype.value} of shape {'x'.join(map(str, shape))}",
                node="[answer] map",
                hint="name probabilities 1x1xHxW in float",
            )
        rows, columns = shape[2:]
        nbytes = self.scratch({port.name: port.type})
        return AnswerCode(
            "Quads",
            text("quads_struct.j2", max=self.max),
            text(
                "quads.j2",
                name=network.name,
                argument=argument_of(port),
                rows=rows,
                nbytes=nbytes,
                columns=columns,
                row_step=every[2],
                column_times=factor(every[3]),
                unit_x=literal(network.width / columns),
                unit_y=literal(network.height / rows),
                binary=literal(self.binary),
                threshold=literal(self.threshold),
                unclip=literal(self.unclip),
                least=literal(self.least),
                least_grown=literal(self.least + 2),
            ),
            (port,),
            frozenset({"algorithm", "cmath", "cstddef", "cstdint"}),
            np.dtype(
                [
                    ("count", "<i4"),
                    (
                        "quad",
                        [
                            ("corner", [("x", "<f4"), ("y", "<f4")], (4,)),
                            ("score", "<f4"),
                            ("label", "<i4"),
                        ],
                        (self.max,),
                    ),
                ]
            ),
            f"up to {self.max} regions of text as turned rectangles, in reading order",
            placed=True,
            elements={"quad": "Quad", "corner": "Corner"},
            scratch=nbytes,
            shown=(
                "for (const {name}::Quad& quad : answer) "
                'std::printf("%.2f at %.1f %.1f\\n", static_cast<double>(quad.score), '
                "static_cast<double>(quad.corner[0].x), static_cast<double>(quad.corner[0].y));",
            ),
        )
