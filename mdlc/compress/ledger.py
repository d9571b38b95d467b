"""The ledger of a compression: one line a stage, as a table, as JSON, and as a page with a plot."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from mdlc.codegen.templates import render
from mdlc.output import write_files


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
    page = render(
        "html/ledger.html.j2",
        model=html.escape(ledger.model),
        target=html.escape(ledger.target),
        samples=ledger.samples,
        columns=[html.escape(name) for name in ledger.columns()],
        rows=[[html.escape(cell) for cell in row] for row in ledger.rows()],
        notes=[(html.escape(e.stage), html.escape(e.note)) for e in ledger.entries],
        plot=_plot(ledger.entries),
    )
    data = json.dumps(ledger.to_json(), indent=2) + "\n"
    stem = path.stem if path.suffix in (".html", ".json") else path.name
    files = {f"{stem}.html": page.encode(), f"{stem}.json": data.encode()}
    return write_files(path.parent, files)


WIDTH, HEIGHT, LEFT, BOTTOM = 720, 300, 60, 40


def _plot(entries: Sequence[Entry]) -> dict[str, object]:
    """Points of accuracy over bytes on disk, and the lines of the axes."""
    shares = [e.top1 if e.top1 is not None else e.agreement for e in entries]
    values = [1.0 if share is None else share for share in shares]
    low = max(0.0, min(values) - 0.02)
    high = min(1.0, max(values) + 0.02)
    most = max(e.disk_bytes for e in entries)

    def x(nbytes: float) -> float:
        return round(LEFT + (WIDTH - LEFT - 20) * nbytes / most, 1)

    def y(share: float) -> float:
        return round(20 + (HEIGHT - BOTTOM - 20) * (high - share) / max(high - low, 1e-9), 1)

    return {
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "bottom": HEIGHT - BOTTOM,
        "what": "top-1" if entries[0].top1 is not None else "agreement with the original",
        "points": [
            (x(e.disk_bytes), y(value), html.escape(e.stage))
            for e, value in zip(entries, values, strict=True)
        ],
        "x_ticks": [(x(most * i / 4), f"{most * i / 4e6:.2f}") for i in range(5)],
        "y_ticks": [
            (y(low + (high - low) * i / 4), f"{100 * (low + (high - low) * i / 4):.1f} %")
            for i in range(5)
        ],
    }
