"""The report of a quantised network: a table, the same as JSON, and a plot of the ranges."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from typing import Any

from mdlc.compiler.errors import MdlcError
from mdlc.precision.int8 import LowPrecision
from mdlc.quantization.report import LayerReport

# Histograms in the plot, the worst layers first.
MAX_PLOTS = 48
COLUMNS = 4


def report_files(low: LowPrecision, title: str) -> dict[str, bytes]:
    """layers.txt, layers.json and ranges.svg.

    Raises:
        MdlcError: there is no calibration set to measure on, or no matplotlib to plot with.
    """
    layers = low.reports()
    return {
        "layers.txt": report_text(layers, low, title).encode(),
        "layers.json": json.dumps([_as_json(layer) for layer in layers], indent=1).encode(),
        "ranges.svg": range_plot(layers, title),
    }


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


def _as_json(layer: LayerReport) -> dict[str, Any]:
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


def range_plot(layers: Sequence[LayerReport], title: str) -> bytes:
    """Histograms of the layers' values with the ranges chosen, as SVG.

    Raises:
        MdlcError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise MdlcError(
            "the plot needs matplotlib",
            node="--quantization-report",
            hint="install it with: pip install 'mdlc[plot]'",
        ) from None
    shown = layers[:MAX_PLOTS]
    rows = max(math.ceil(len(shown) / COLUMNS), 1)
    # The same text for the same figures: no date in it, and names that do not depend on chance.
    with matplotlib.rc_context({"svg.hashsalt": "mdlc", "svg.fonttype": "none"}):
        figure = Figure(figsize=(4 * COLUMNS, 2.4 * rows), layout="constrained")
        figure.suptitle(f"{title}: values of the layers and the ranges kept, the worst first")
        for index, layer in enumerate(shown):
            axes = figure.add_subplot(rows, COLUMNS, index + 1)
            counts, known = layer.range.histogram, layer.range
            width = (known.largest - known.smallest) / max(len(counts), 1)
            if counts and width > 0:
                edges = [known.smallest + width * i for i in range(len(counts) + 1)]
                axes.stairs(counts, edges, fill=True, color="#7a9cc6")
                axes.set_yscale("log")
            for border in (known.low, known.high):
                axes.axvline(border, color="#b03030", linewidth=1)
            axes.set_title(f"{layer.name[-36:]}  {layer.own_snr_db:.1f} dB", fontsize=7)
            axes.tick_params(labelsize=6)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()
