"""What the caller asks of quantization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.types import Array
from mdlc.quantization.ranges import METHODS

ROUNDINGS = ("adaptive", "corrected", "nearest")
PLACEMENTS = ("cost", "everywhere")
DEFAULT_METHOD = "minmax"


@dataclass(frozen=True)
class Quantize:
    """Compile to 8-bit integers.

    Attributes:
        calibrate: a folder of pictures, an NPZ file (arrays of one input, or of many along a
            first axis), a calibration table (.json) that was kept, or the inputs themselves as
            mappings from input name to array.
        calibration: how ranges are chosen: minmax, percentile, entropy or mse.
        per_tensor: one scale for all weights of a layer, not one for every output channel.
        keep_float: layers that stay in float, by the tensor that they or their activation make.
        accuracy_drop: most points of top-1 that may be lost; the compiler keeps the fewest
            layers in float that it takes.
        labels: CSV of the classes of the calibration set's inputs; without, the float network's
            answers count as right.
        rounding: adaptive (for the layer's output, with biases corrected), corrected (to
            nearest, and biases take back what the mean moves) or nearest.
        equalise: bring the channels between convolutions to ranges alike first.
        placement: cost: layers that are estimated to be faster in float on the target, with the
            transitions that it takes, stay there; everywhere: all layers that can be in integers.
    """

    calibrate: str | Path | Sequence[Mapping[str, Array]]
    calibration: str = DEFAULT_METHOD
    per_tensor: bool = False
    keep_float: Sequence[str] = ()
    accuracy_drop: float | None = None
    labels: str | Path | None = None
    rounding: str = ROUNDINGS[0]
    equalise: bool = False
    placement: str = "cost"

    def __post_init__(self) -> None:
        if self.calibration not in METHODS:
            raise MdlcError(
                f"there is no calibration method {self.calibration!r}",
                node="--calibration",
                hint=f"choose one of {', '.join(METHODS)}",
            )
        for option, given, known in (
            ("rounding", self.rounding, ROUNDINGS),
            ("placement", self.placement, PLACEMENTS),
        ):
            if given not in known:
                raise MdlcError(
                    f"there is no {option} {given!r}",
                    node=f"--{option}",
                    hint=f"choose one of {', '.join(known)}",
                )
        if self.accuracy_drop is not None and not 0 <= self.accuracy_drop <= 100:
            raise MdlcError(
                f"{self.accuracy_drop:g} points", node="--accuracy-drop", hint="choose 0 to 100"
            )
        if self.labels is not None and self.accuracy_drop is None:
            raise MdlcError(
                "nothing is counted", node="--labels", hint="give --accuracy-drop POINTS too"
            )
        if self.from_table and self.accuracy_drop is not None:
            raise MdlcError(
                "a calibration table holds no inputs to count on",
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

    def words(self) -> list[str]:
        """The options of the command line; folders are left out of the names of files."""
        words = ["--quantize", "int8"]
        if self.path is not None:
            words += ["--calibrate", self.path.name]
        words += ["--calibration", self.calibration]
        if self.per_tensor:
            words.append("--per-tensor")
        if self.keep_float:
            words += ["--keep-float", ",".join(self.keep_float)]
        if self.accuracy_drop is not None:
            words += ["--accuracy-drop", f"{self.accuracy_drop:g}"]
        if self.labels is not None:
            words += ["--labels", Path(self.labels).name]
        if self.rounding != ROUNDINGS[0]:
            words += ["--rounding", self.rounding]
        if self.equalise:
            words.append("--equalise")
        if self.placement != "cost":
            words += ["--placement", self.placement]
        return words
