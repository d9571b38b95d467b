"""The ledger of a compression: one line a stage, as a table, as JSON, and as a page with a plot."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mdlc.compiler.words import counted
from mdlc.output import write_files
from mdlc.reports import charts
from mdlc.reports.page import Chart, Page, Section, Table


@dataclass(frozen=True)
class Entry:
    """One stage.

    Attributes:
        stage: original, pruned, refitted, or the weights' encoding.
        note: what was done.
        disk_bytes: of the weights file; memory_bytes: weights in memory and arena.
        params: weights and biases; macs: multiply-adds of one inference.
        predicted_mcycles: by the compiler's cost model, millions of cycles on one core.
        measured_ms: median of whole inferences of the emitted class; None where the target does
            not run here natively.
        top1, top5, agreement: see mdlc.checks.accuracy.Accuracy; None without samples.
        weight_error: of encoded weights, the mean over layers of the relative error.
    """

    stage: str
    note: str
    disk_bytes: int
    memory_bytes: int
    params: int
    macs: int
    predicted_mcycles: float
    measured_ms: float | None = None
    top1: float | None = None
    top5: float | None = None
    agreement: float | None = None
    weight_error: float | None = None


@dataclass(frozen=True)
class Ledger:
    """All stages of one network on one target, the original first."""

    model: str
    target: str
    samples: int
    entries: tuple[Entry, ...]

    def to_json(self) -> dict[str, object]:
        """As written to the report."""
        return {
            "format": 1,
            "model": self.model,
            "target": self.target,
            "samples": self.samples,
            "stages": [asdict(entry) for entry in self.entries],
        }

    def absent(self) -> list[str]:
        """Why figures are missing, a line each."""
        lines = []
        if not self.samples:
            lines.append("accuracy was not measured: --test PICTURES measures it")
        elif all(entry.top1 is None for entry in self.entries):
            lines.append("top-1 is not known without labels: --test-labels CSV has them")
        if all(entry.measured_ms is None for entry in self.entries):
            lines.append(f"no times: {self.target} does not run on this machine")
        return lines

    def columns(self) -> tuple[str, ...]:
        """Heads of `rows`."""
        return (
            "stage", "disk", "", "memory", "MAC", "predicted", "measured", "top-1", "top-5",
            "agreement", "weights' error",
        )  # fmt: skip

    def rows(self) -> list[tuple[str, ...]]:
        """The table, as text."""
        first = self.entries[0]
        return [
            (
                entry.stage,
                f"{entry.disk_bytes / 1e6:.3f} MB",
                f"1/{first.disk_bytes / entry.disk_bytes:.1f}",
                f"{entry.memory_bytes / 1e6:.3f} MB",
                f"{entry.macs / 1e6:.2f} M",
                f"{entry.predicted_mcycles:.2f} Mcycles",
                "" if entry.measured_ms is None else f"{entry.measured_ms:.3f} ms",
                *(
                    "" if share is None else f"{100 * share:.2f} %"
                    for share in (entry.top1, entry.top5, entry.agreement)
                ),
                "" if entry.weight_error is None else f"{100 * entry.weight_error:.2g} %",
            )
            for entry in self.entries
        ]


def entry_from_json(data: dict[str, object]) -> Entry:
    """An entry as `asdict` gave it; unknown fields raise TypeError."""
    known = {field.name for field in fields(Entry)}
    if set(data) != known:
        raise TypeError("not the fields of an entry")
    return Entry(**data)  # type: ignore[arg-type]


def write_ledger(path: Path, ledger: Ledger) -> list[Path]:
    """Writes the report as HTML and as JSON, whatever the ending of the path.

    Raises:
        MdlcError: the folder cannot be written to.
    """
    page = _page(ledger).html()
    data = json.dumps(ledger.to_json(), indent=2) + "\n"
    stem = path.stem if path.suffix in (".html", ".json") else path.name
    files = {f"{stem}.html": page, f"{stem}.json": data.encode()}
    return write_files(path.parent, files)


def _page(ledger: Ledger) -> Page:
    """Accuracy, as far as it was measured, over bytes; or bytes alone."""
    told = [
        "Bytes on disk are those of the weights file; memory is weights and working memory.",
        *(f"{line[0].upper()}{line[1:]}." for line in ledger.absent()),
    ]
    rows = [
        {"stage": e.stage, "name": e.stage, "mb": e.disk_bytes / 1e6, "top1": e.top1,
         "agreement": e.agreement}
        for e in ledger.entries
    ]  # fmt: skip
    parts: list[Any] = []
    for key, what in (("top1", "top-1"), ("agreement", "agreement with the original")):
        known = [{**row, "share": row[key]} for row in rows if row[key] is not None]
        if known:
            parts.append(Chart(f"{what[0].upper()}{what[1:]}", charts.ledger(known, what)))
            break
    parts.append(Chart("Bytes on disk", charts.bars(rows, "mb", "MB on disk")))
    columns, cells = ledger.columns(), ledger.rows()
    used = [i for i in range(len(columns)) if any(row[i] for row in cells)]
    parts.append(
        Table(
            "Stages",
            [columns[i] for i in used],
            [[row[i] for i in used] for row in cells],
            frozenset(range(1, len(used))),
            opened=True,
        )
    )
    notes = [(e.stage, e.note) for e in ledger.entries]
    parts.append(Table("What each stage did", ("stage", ""), notes, opened=True))
    return Page(
        f"{ledger.model}: compression",
        f"for {ledger.target}, {counted(ledger.samples, 'sample')}",
        {},
        [Section("Stages", told, parts)],
    )
