"""What the caller asks of quantization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.types import Array
from mdlc.option import Group, check_fields, option
from mdlc.quantization.ranges import METHODS

ROUNDINGS = ("adaptive", "corrected", "nearest")
PLACEMENTS = ("cost", "everywhere")
DEFAULT_METHOD = "minmax"


# One flag, of ranges of 8-bit integers and of half precision alike.
CALIBRATE: dict[str, Any] = {
    "metavar": "PICTURES|NPZ|TABLE",
    "help": "What to learn the ranges of all tensors from: a folder of pictures, an NPZ file, or "
    "(for --quantize) a table (.json) that --calibration-table kept.",
}


def _names(given: str | Sequence[str]) -> tuple[str, ...]:
    """Names of layers; texts may have several, between commas."""
    texts = [given] if isinstance(given, str) else given
    return tuple(name for text in texts for name in text.split(",") if name)


def _calibrate_words(given: Any) -> list[str]:
    return ["--calibrate", Path(given).name] if isinstance(given, str | Path) else []


@dataclass(frozen=True)
class Quantize:
    """Compile to 8-bit integers.

    Inputs to calibrate with may also be mappings from input name to array; an NPZ file has arrays
    of one input, or of many along a first axis.

    Raises:
        MdlcError: a value that an option does not have, or two that contradict each other.
    """

    calibrate: str | Path | Sequence[Mapping[str, Array]] = option(
        MISSING, "--calibrate", group=Group.PRECISION, convert=lambda given: given,
        path="any", shows=_calibrate_words, **CALIBRATE,
    )  # fmt: skip
    calibration: str = option(
        DEFAULT_METHOD, "--calibration", group=Group.PRECISION, choices=tuple(METHODS), always=True,
        help="How ranges are chosen.",
    )  # fmt: skip
    per_tensor: bool = option(
        False, "--per-tensor", group=Group.PRECISION,
        help="One scale for all weights of a layer, instead of one for every channel.",
    )  # fmt: skip
    keep_float: Sequence[str] = option(
        (), "--keep-float", group=Group.PRECISION, metavar="LAYER[,LAYER]", repeated=True,
        convert=_names, shows=lambda names: ["--keep-float", ",".join(names)],
        help="Layers that stay in float, as the report names them. May be repeated.",
    )  # fmt: skip
    accuracy_drop: float | None = option(
        None, "--accuracy-drop", group=Group.PRECISION, metavar="POINTS", number=float,
        bounds=(0, 100),
        help="Most points of top-1 to lose: keeps the fewest layers in float that it takes.",
    )  # fmt: skip
    labels: str | Path | None = option(
        None, "--calibrate-labels", group=Group.LABELS, metavar="CSV", path="any",
        help="Classes of the calibration pictures (file,class), for --accuracy-drop. Default: "
        "the float network's answers.",
    )  # fmt: skip
    rounding: str = option(
        ROUNDINGS[0], "--rounding", group=Group.PRECISION, choices=ROUNDINGS,
        help="How weights are rounded: for the layer's output; to nearest, biases corrected; or "
        "to nearest and nothing more.",
    )  # fmt: skip
    equalise: bool = option(
        False, "--equalise", group=Group.PRECISION,
        help="First bring channels between convolutions to similar ranges.",
    )  # fmt: skip
    placement: str = option(
        PLACEMENTS[0], "--placement", group=Group.PRECISION, choices=PLACEMENTS,
        help="Integers where the target is faster with them (cost), or everywhere.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_fields(self)
        if self.labels is not None and self.accuracy_drop is None:
            raise MdlcError(
                "labels are only used to count lost answers",
                node="--calibrate-labels",
                hint="give --accuracy-drop POINTS too",
            )
        if self.from_table and self.accuracy_drop is not None:
            raise MdlcError(
                "a calibration table holds no pictures to count answers on",
                node="--accuracy-drop",
                hint="give --calibrate the pictures",
            )

    @property
    def path(self) -> Path | None:
        """The file or folder, where the inputs come from one."""
        return Path(self.calibrate) if isinstance(self.calibrate, str | Path) else None

    @property
    def source(self) -> Path | Sequence[Mapping[str, Array]]:
        """Where the inputs come from, a path as Path."""
        given = self.calibrate
        return Path(given) if isinstance(given, str | Path) else given

    @property
    def from_table(self) -> bool:
        """Whether ranges are read from a table instead of measured."""
        return self.path is not None and self.path.suffix.lower() == ".json"
