"""The report of a quantised network: a table, the same as JSON, and a page with charts."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from mdlc.precision.int8 import LowPrecision
from mdlc.quantization.report import LayerReport
from mdlc.reports.page import Page, Section
from mdlc.reports.sections import int8_parts


def report_files(low: LowPrecision, title: str) -> dict[str, bytes]:
    """layers.txt, layers.json and layers.html, whose charts need the extra `report`.

    Raises:
        MdlcError: there is no calibration set to measure on.
    """
    layers = low.reports()
    rows = [layer_json(layer) for layer in layers]
    return {
        "layers.txt": report_text(layers, low, title).encode(),
        "layers.json": json.dumps(rows, indent=1).encode(),
        "layers.html": _page(rows, low, title).html(),
    }


def _page(rows: Sequence[dict[str, Any]], low: LowPrecision, title: str) -> Page:
    """Signal over noise of the layers, the worst first, and the ranges of the worst."""
    assert low.table is not None
    told = [
        f"{len(rows)} layers in 8 bits; ranges by {low.table.method} from {low.table.runs} inputs."
    ]
    if low.choice is not None:
        kept = ", ".join(low.choice.kept) or "none"
        told.append(
            f"{len(low.choice.kept)} layers in float for the budget, {low.choice.lost:.2f} points "
            f"of top-1 lost: {kept}."
        )
    section = Section("Layers in 8 bits, the one that loses most first", told, int8_parts(rows))
    return Page(title, "what 8 bits cost", {}, [section])


def report_text(layers: Sequence[LayerReport], low: LowPrecision, title: str) -> str:
    """A table for people, the worst layer first."""
    assert low.table is not None
    head = ("layer", "operator", "SNR dB", "own SNR dB", "clipped", "range", "zero", "float costs")
    rows = [
        (
            layer.name,
            layer.kind,
            f"{layer.snr_db:.1f}",
            f"{layer.own_snr_db:.1f}",
            f"{100 * layer.clipped:.3f} %",
            f"{layer.range.low:.4g} .. {layer.range.high:.4g}",
            str(layer.zero),
            f"{layer.macs / 1e6:.2f} M MAC, {layer.weight_bytes / 1024:.1f} KiB"
            if layer.macs
            else "",
        )
        for layer in layers
    ]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [
        f"{title}: {len(layers)} layers in 8 bits; ranges by {low.table.method} from "
        f"{low.table.runs} inputs; the layer that loses most by itself first"
    ]
    if low.choice is not None:
        lines.append(
            f"{len(low.choice.kept)} layers in float for the budget, {low.choice.lost:.2f} points "
            f"of top-1 lost: {', '.join(low.choice.kept) or 'none'}"
        )
        lines += [f"  {n} in float: {lost:.2f} points lost" for n, lost in low.choice.trials]
    for row in (head, *rows):
        cells = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def layer_json(layer: LayerReport) -> dict[str, Any]:
    """A layer's figures as plain values."""

    def finite(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "layer": layer.name,
        "operator": layer.kind,
        "snr_db": finite(layer.snr_db),
        "own_snr_db": finite(layer.own_snr_db),
        "clipped": layer.clipped,
        "low": layer.range.low,
        "high": layer.range.high,
        "smallest": layer.range.smallest,
        "largest": layer.range.largest,
        "scale": layer.scale,
        "zero": layer.zero,
        "macs": layer.macs,
        "weight_bytes": layer.weight_bytes,
        "histogram": list(layer.range.histogram),
    }
