"""The region of interest: what a second network sees of what a first one has found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mdlc.codegen.answer.checks import between, one_of
from mdlc.codegen.answer.code import AnswerCode
from mdlc.compiler.errors import MdlcError

SECTION = "[region]"
FITS = ("grow", "stretch", "pad")


@dataclass(frozen=True)
class Region:
    """How a box, or a quadrilateral, becomes the input of a second network.

    Attributes:
        fit: grow: the box is made wider or higher until it has the shape of the input; stretch:
            it is stretched to it; pad: it has the input's height, and what is left of the input
            on its right is fill (a line of text).
        scale: of the box's width and height; shift: of its middle, in parts of both.
        turn: numbers of two key points of the box that lie side by side in an upright picture,
            the left one first; none: the box is upright as the frame is.
        tall: a quadrilateral that is so many times as high as wide is turned a quarter to the
            left, as a line of text that runs down is; 0: none is.
        max: most boxes that the second network sees, the best first; 0: all.
    """

    fit: str = "grow"
    scale: float | Sequence[float] = 1.0
    shift: Sequence[float] = (0.0, 0.0)
    turn: Sequence[int] = ()
    tall: float = 0.0
    max: int = 0

    def __post_init__(self) -> None:
        one_of(self, "fit", FITS, SECTION)
        between(self, "tall", 0.0, 100.0, SECTION)
        between(self, "max", 0, 10_000, SECTION)
        for key, values, count in (
            ("scale", self.scales, 2),
            ("shift", self.shift, 2),
            ("turn", self.turn or (0, 1), 2),
        ):
            if len(values) != count:
                raise MdlcError(
                    f"has {len(values)} numbers", node=f"{SECTION} {key}", hint=f"write {count}"
                )
        for value in self.scales:
            if not 0.1 <= value <= 10.0:
                raise MdlcError(
                    f"{value:g} is out of range",
                    node=f"{SECTION} scale",
                    hint="choose a number from 0.1 to 10",
                )

    @property
    def scales(self) -> Sequence[float]:
        """Of the width and of the height."""
        return (self.scale,) * 2 if isinstance(self.scale, int | float) else self.scale

    def check(self, found: AnswerCode) -> None:
        """The first network's answer has what is asked for.

        Raises:
            MdlcError: it has no boxes, or not the key points that turn them.
        """
        if found.type not in ("Boxes", "Quads"):
            raise MdlcError(
                f"the first network answers with {found.type}, which have no places to look at",
                node="[first.answer]",
                hint="give it an answer with boxes or quads",
            )
        names = found.dtype[1].base.names or ()
        turned = "corner" in names
        points = 0
        if "keypoints" in names and not turned:
            points = found.dtype[1].base["keypoints"].shape[0]
        for number in self.turn:
            if not 0 <= number < points:
                raise MdlcError(
                    f"the first network's boxes have {points} key points, not one of number "
                    f"{number}",
                    node=f"{SECTION} turn",
                    hint="number two of them from 0, or leave it out",
                )
        if self.tall and not turned:
            raise MdlcError(
                "boxes are upright",
                node=f"{SECTION} tall",
                hint="leave it out; it is for quads and turned boxes",
            )
