"""The calibration table: the range of every tensor, in a file that can be kept, read and edited."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdlc.compiler.errors import MdlcError
from mdlc.quantization.ranges import choose_range, clipped_share
from mdlc.quantization.statistics import Statistics

FORMAT = "mdlc calibration table"
VERSION = 1


@dataclass(frozen=True)
class TensorRange:
    """What is known of a tensor.

    Attributes:
        low, high: the range that the integers are spent on; low <= 0 <= high.
        smallest, largest: what was seen.
        clipped: share of the elements outside the range.
        histogram: counts of the elements in bins of one width from smallest to largest.
    """

    low: float
    high: float
    smallest: float
    largest: float
    clipped: float = 0.0
    histogram: tuple[int, ...] = ()


@dataclass(frozen=True)
class CalibrationTable:
    """Ranges by tensor.

    Attributes:
        method: how the ranges were chosen.
        runs: inputs of the network that were seen.
        tensors: by the keys of `calibrate.tensor_keys`.
    """

    method: str
    runs: int
    tensors: Mapping[str, TensorRange]

    def dumps(self) -> str:
        """The file's text: JSON, one line a tensor."""
        head = {"format": FORMAT, "version": VERSION, "method": self.method, "runs": self.runs}
        lines = [
            f"    {json.dumps(name, ensure_ascii=False)}: {json.dumps(_as_json(found))}"
            for name, found in self.tensors.items()
        ]
        body = json.dumps(head, indent=2)[:-2]
        return f'{body},\n  "tensors": {{\n' + ",\n".join(lines) + "\n  }\n}\n"


def make_table(statistics: Mapping[str, Statistics], method: str) -> CalibrationTable:
    """A table of ranges chosen by a method of ranges.METHODS.

    Raises:
        MdlcError: there is no such method.
    """
    tensors = {}
    for name, found in statistics.items():
        histogram = found.histogram
        low, high = choose_range(histogram, method)
        smallest, largest, counts = histogram.coarse()
        share = clipped_share(histogram, (low, high))
        tensors[name] = TensorRange(low, high, smallest, largest, share, tuple(counts))
    runs = max((found.runs for found in statistics.values()), default=0)
    return CalibrationTable(method, runs, tensors)


def load_table(path: Path) -> CalibrationTable:
    """Reads a table.

    Raises:
        MdlcError: the file cannot be read, is no table, or holds a range that is none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MdlcError("there is no such file", node=str(path), hint="check the path") from None
    except (OSError, UnicodeDecodeError):
        raise MdlcError("cannot be read", node=str(path), hint="check the path") from None
    try:
        given = json.loads(text)
    except json.JSONDecodeError as error:
        raise MdlcError(f"line {error.lineno} is not JSON: {error.msg}", node=str(path)) from None
    if not isinstance(given, dict) or given.get("format") != FORMAT:
        raise MdlcError(
            "is not a calibration table", node=str(path), hint="write one with --calibration-table"
        )
    if given.get("version") != VERSION:
        raise MdlcError(
            f"is a calibration table of version {given.get('version')!r}, not {VERSION}",
            node=str(path),
            hint="calibrate again",
        )
    tensors = given.get("tensors")
    if not isinstance(tensors, dict):
        raise MdlcError("holds no tensors", node=str(path), hint="calibrate again")
    ranges = {name: _from_json(name, entry, path) for name, entry in tensors.items()}
    runs = given.get("runs")
    return CalibrationTable(
        str(given.get("method", "")), runs if isinstance(runs, int) else 0, ranges
    )


def _as_json(found: TensorRange) -> dict[str, Any]:
    return {
        "low": found.low,
        "high": found.high,
        "smallest": found.smallest,
        "largest": found.largest,
        "clipped": found.clipped,
        "histogram": list(found.histogram),
    }


def _from_json(name: str, entry: Any, path: Path) -> TensorRange:
    where = f"{path}: tensor {name!r}"
    if not isinstance(entry, dict):
        raise MdlcError("is not a JSON object", node=where)
    numbers = []
    for key, default in (
        ("low", None),
        ("high", None),
        ("smallest", "low"),
        ("largest", "high"),
        ("clipped", 0.0),
    ):
        value = entry.get(key, entry.get(default) if isinstance(default, str) else default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise MdlcError(f"{key} is {value!r}, not a number", node=where)
        if not math.isfinite(value):
            raise MdlcError(f"{key} is {value!r}", node=where, hint="give ordinary numbers")
        numbers.append(float(value))
    low, high, smallest, largest, clipped = numbers
    if low > 0 or high < 0:
        raise MdlcError(
            f"the range {low:g} to {high:g} leaves out zero",
            node=where,
            hint="a range must hold 0, which padding and ReLU need exactly",
        )
    counts = entry.get("histogram", [])
    if not isinstance(counts, list) or not all(isinstance(c, int) and c >= 0 for c in counts):
        raise MdlcError("its histogram is not a list of counts", node=where)
    return TensorRange(low, high, smallest, largest, clipped, tuple(counts))
