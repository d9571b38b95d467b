"""What quantization leaves behind: the table, the report, and word of what was kept in float."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mdlc
from mdlc.commands.console import err, out
from mdlc.output import write_file, write_files
from mdlc.precision.report import report_files


def write_quantization(
    compiled: mdlc.CompiledModel, calibration_table: Path | None, report: Path | None
) -> None:
    """The files asked for, and a line about the layers that a budget kept in float."""
    low = compiled.low_precision
    if low is None or low.table is None:
        return
    if calibration_table is not None:
        write_file(calibration_table, low.table.dumps().encode())
    if report is not None:
        write_files(report, report_files(low, compiled.name))
    console = err()
    if low.placement is not None and low.placement.in_float:
        names = low.placement.in_float
        console.print(
            f"mdlc: {len(names)} of {len(low.placement.cycles)} layers stay in float, which is "
            f"faster on {compiled.plan.backend.name}: {_listed(names)}"
        )
    if low.choice is not None:
        kept = low.choice.kept
        console.print(
            f"mdlc: {len(kept)} layers stay in float for accuracy, {low.choice.lost:.2f} points of "
            f"top-1 are lost{': ' if kept else ''}{', '.join(kept)}"
        )


def tell_half_precision(compiled: mdlc.CompiledModel) -> None:
    """A line about layers that stay in float although half precision was asked for."""
    half = compiled.half_precision
    if half is None or half.narrowed is None:
        return
    kept, console = half.narrowed.kept, out()
    if kept:
        reasons = [f"{name} ({reason})" for name, reason in kept.items()]
        console.print(
            f"mdlc: {len(kept)} layers stay in float, as they could leave the range of half "
            f"precision: {_listed(reasons)}",
            soft_wrap=True,
        )
    estimated = sum(grounds == "estimated" for grounds in half.grounds.values())
    if estimated:
        err().print(
            f"mdlc: {estimated} layers are in half precision by an estimate of their range that "
            "takes inputs to be about normalised; --calibrate PICTURES measures it",
            soft_wrap=True,
        )


def _listed(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
