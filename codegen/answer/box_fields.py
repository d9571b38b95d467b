"""The keys that describe how boxes are decoded, and what they may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mdlc.codegen.answer.checks import between, one_of
from mdlc.compiler.errors import MdlcError

FORMS = ("ltrb", "cxcywh", "distance", "offset")
UNITS = ("pixel", "picture", "stride", "prior")
ACTIVATIONS = ("none", "sigmoid", "softmax")
CENTRES = {
    "none": "{}",
    "tanh": "std::tanh({})",
    "sigmoid": "Sigmoid({})",
    "yolov5": "(2.0F * Sigmoid({}) - 0.5F)",
}
SIZES = {
    "none": "{}",
    "exp": "std::exp({})",
    "sigmoid": "Sigmoid({})",
    "yolov5": "(4.0F * Sigmoid({0}) * Sigmoid({0}))",
}
SUPPRESSIONS = ("hard", "soft", "weighted", "none")


@dataclass(frozen=True)
class BoxFields:
    """How boxes are decoded.

    Tensors are named as in `columns.parse_columns`; a list has an entry for each grid.

    Attributes:
        scores: a candidate's score for each class; boxes: its four numbers.
        objectness: its score of being any object; label: its class, where the network chose it.
        sizes: its width and height, where `boxes` has the centre's two numbers alone.
        coefficients: of the prototypes, whose sum is its mask; prototypes: the output 1xKxHxW.
        peaks: a candidate is a cell of a map that no neighbour's score exceeds.
        angle: its turn in radians, clockwise, of boxes of centre and size.
        keypoints: its points; keypoint_values: numbers a point, 3 with a score.
        form: what the four numbers are: corners (ltrb), centre and size (cxcywh), distances from
            the prior's centre to the sides, or offsets to the prior.
        unit: of ltrb, cxcywh and distances; of offsets it is `prior` if nothing is said.
        centre_activation, size_activation: of offsets.
        variance: factors of the centre's and the size's numbers (SSD has 0.1 and 0.2).
        bins: numbers of the distribution that a distance is the mean of; 1 where it is one number.
        strides: of the grids, in pixels; cell: where in a cell its point lies, 0 or 0.5; shift:
            pixels that are added to that (NanoDet's points lie at 0.5 * (stride - 1)).
        anchors: a file (`read_anchors`) or the strides of MediaPipe's face detectors.
        score_activation, objectness_activation: applied to the network's numbers.
        score_power, objectness_power: the score is the product of both with these exponents.
        background: class that is no object, of a softmax over all.
        threshold: smallest score; overlap: largest intersection over union of two boxes.
        suppression: hard; soft (scores fall by a Gaussian of the overlap, `sigma`); weighted
            (boxes that overlap become their mean, weighted by score); none.
        class_wise: boxes of other classes suppress nothing.
        multi_label: a candidate may give a box for each class, not only for its best.
        max: most boxes; candidates: most that are decoded.
        clip: boxes end where the picture does.
    """

    scores: str | Sequence[str]
    boxes: str | Sequence[str]
    objectness: str | Sequence[str] | None = None
    label: str | Sequence[str] | None = None
    sizes: str | Sequence[str] | None = None
    coefficients: str | Sequence[str] | None = None
    prototypes: str | None = None
    peaks: bool = False
    angle: str | Sequence[str] | None = None
    keypoints: str | Sequence[str] | None = None
    keypoint_values: int = 2
    keypoint_form: str = "offset"
    keypoint_activation: str = "none"
    form: str = "cxcywh"
    unit: str = "pixel"
    centre_activation: str = "none"
    size_activation: str = "exp"
    size_unit: str | None = None
    variance: Sequence[float] = (1.0, 1.0)
    bins: int = 1
    strides: Sequence[int] = ()
    cell: float = 0.0
    shift: float = 0.0
    anchors: str | Sequence[int] | None = None
    score_activation: str = "none"
    objectness_activation: str = "none"
    score_power: float = 1.0
    objectness_power: float = 1.0
    background: int | None = None
    threshold: float = 0.25
    overlap: float = 0.45
    suppression: str = "hard"
    sigma: float = 0.5
    class_wise: bool = True
    multi_label: bool = False
    max: int = 100
    candidates: int = 1024
    clip: bool = False

    def __post_init__(self) -> None:
        one_of(self, "form", FORMS)
        one_of(self, "unit", UNITS)
        one_of(self, "size-unit", (*UNITS, None))
        one_of(self, "score-activation", ACTIVATIONS)
        one_of(self, "objectness-activation", ACTIVATIONS[:2])
        one_of(self, "keypoint-activation", ACTIVATIONS[:2])
        one_of(self, "keypoint-form", ("offset", "absolute"))
        one_of(self, "centre-activation", tuple(CENTRES))
        one_of(self, "size-activation", tuple(SIZES))
        one_of(self, "suppression", SUPPRESSIONS)
        between(self, "threshold", 0.0, 1.0)
        between(self, "overlap", 0.0, 1.0)
        between(self, "max", 1, 10_000)
        between(self, "candidates", self.max, 100_000)
        between(self, "bins", 1, 256)
        between(self, "keypoint-values", 2, 3)
        between(self, "sigma", 1e-3, 100.0)
        between(self, "score-power", 1e-2, 100.0)
        between(self, "objectness-power", 1e-2, 100.0)
        if self.angle is not None:
            self._check_turned()
        if self.sizes is not None and self.form not in ("cxcywh", "offset"):
            raise MdlcError(
                f"boxes of the form {self.form} have no sizes of their own",
                node="[answer] sizes",
                hint="leave it out, or set form to offset",
            )
        if (self.coefficients is None) != (self.prototypes is None):
            raise MdlcError(
                "a mask is made of coefficients and prototypes",
                node="[answer]",
                hint="name both outputs, or none",
            )
        if len(self.variance) != 2:
            raise MdlcError(
                f"variance has {len(self.variance)} numbers", node="[answer]", hint="write two"
            )

    def _check_turned(self) -> None:
        for bad, key, reason in (
            (
                self.form not in ("cxcywh", "offset"),
                "form",
                "turned boxes have a centre and a size",
            ),
            (self.suppression == "weighted", "suppression", "turned boxes have no mean"),
            (self.clip, "clip", "turned boxes are not clipped"),
        ):
            if bad:
                raise MdlcError(reason, node=f"[answer] {key}", hint="correct it, or leave it out")
