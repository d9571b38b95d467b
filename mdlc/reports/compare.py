"""Two reports side by side: two targets, float and 8 bits, two versions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.words import byte_count
from mdlc.reports import charts
from mdlc.reports.form import FORMAT
from mdlc.reports.page import Chart, Page, Section, Table
from mdlc.reports.sections import code_size, number

Row = Mapping[str, Any]
# What is put side by side.
_KEYS = (
    "mdlc", "name", "target", "model", "precision", "macs", "time", "weights", "code", "arena",
    "errors", "layers",
)  # fmt: skip


def read_report(path: Path) -> dict[str, Any]:
    """A report that `mdlc report` wrote as JSON.

    Raises:
        MdlcError: it is missing or something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MdlcError("there is no such file", node=str(path), hint="check the path") from None
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or not set(_KEYS) <= set(found):
        raise MdlcError(
            "is not a report", node=str(path), hint="give the JSON that `mdlc report` writes"
        )
    if found.get("format") != FORMAT:
        raise MdlcError(
            f"has format {found.get('format')}, not {FORMAT}",
            node=str(path),
            hint="make it anew with this version of mdlc",
        )
    return found


def compare(first: Row, second: Row) -> Page:
    """The page of two reports."""
    names = _names(first, second)
    both = (first, second)
    parts: list[Any] = [
        Table(
            "In all",
            ("", *names, "ratio"),
            [(what, *(text for text, _ in values), _ratio(values[0][1], values[1][1]))
             for what, values in _totals(first, second)],
            frozenset({1, 2, 3}),
            opened=True,
        )
    ]  # fmt: skip
    told = []
    if first["time"]["unit"] == second["time"]["unit"]:
        times = [{r["name"]: r["value"] for r in each["time"]["rows"]} for each in both]
        parts.append(Chart("Time by layer", charts.compared(times, names, first["time"]["unit"])))
    else:
        told.append(
            f"Times are not drawn beside each other: {names[0]} was {first['time']['kind']} in "
            f"{first['time']['unit']}, {names[1]} {second['time']['kind']} in "
            f"{second['time']['unit']}."
        )
    sizes = [{r["name"]: r["file"] / 1024 for r in each["weights"]["rows"]} for each in both]
    parts.append(Chart("Weights by layer", charts.compared(sizes, names, "KiB in the file")))
    noise = [
        {r["name"]: r["snr_db"] for r in each["errors"]["rows"] if r.get("snr_db") is not None}
        for each in both
    ]
    if any(noise):
        parts.append(
            Chart("Signal over noise by layer", charts.compared(noise, names, "SNR in dB"))
        )
    else:
        told.append("Errors were measured in neither.")
    parts.append(_kernels(first, second, names))
    section = Section("Side by side", told, parts)
    return Page(f"{names[0]} and {names[1]}", "two reports of mdlc", {}, [section])


def _names(first: Row, second: Row) -> tuple[str, str]:
    """What tells the two apart."""
    for keys in (
        ("target",),
        ("precision",),
        ("name",),
        ("target", "precision"),
        ("model",),
        ("mdlc",),
    ):
        one, two = (", ".join(str(each[key]) for key in keys) for each in (first, second))
        if one != two:
            return one, two
    return f"{first['name']} (first)", f"{second['name']} (second)"


def _totals(first: Row, second: Row) -> list[tuple[str, list[tuple[str, float]]]]:
    found = []
    for what, of in (
        ("time", _time),
        ("multiply-adds", lambda r: (number(r["macs"]), r["macs"])),
        ("weights file", lambda r: _bytes(r["weights"]["file"])),
        ("weights in memory", lambda r: _bytes(r["weights"]["memory"])),
        ("arena", lambda r: _bytes(r["arena"]["bytes"])),
        ("code", lambda r: (code_size(r["code"]), r["code"]["machine"] or 0)),
        ("layers", lambda r: (str(len(r["layers"])), len(r["layers"]))),
    ):
        found.append((what, [of(first), of(second)]))
    if first["time"]["unit"] != second["time"]["unit"]:
        found[0] = (found[0][0], [(text, 0.0) for text, _ in found[0][1]])
    return found


def _time(report: Row) -> tuple[str, float]:
    time = report["time"]
    total = time["whole"] or sum(row["value"] for row in time["rows"])
    return f"{number(total)} {time['unit']}, {time['kind']}", total


def _bytes(count: int) -> tuple[str, float]:
    return byte_count(count), count


def _ratio(one: float, two: float) -> str:
    return f"{two / one:.2f}" if one and two else ""


def _kernels(first: Row, second: Row, names: tuple[str, str]) -> Table:
    ways = [
        {
            layer["name"]: next(
                (f"{w['kernel']}: {w['schedule']}" for w in layer["ways"] if w["won"]), ""
            )
            for layer in each["layers"]
        }
        for each in (first, second)
    ]
    rows = [
        (name, ways[0].get(name, "-"), ways[1].get(name, "-"))
        for name in dict.fromkeys((*ways[0], *ways[1]))
    ]
    return Table("Table: kernels by layer", ("layer", *names), rows)
