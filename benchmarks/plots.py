"""Plots of the benchmarks, as SVG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise click.ClickException("a plot needs matplotlib: pip install matplotlib") from None
    matplotlib.use("svg")
    from matplotlib import pyplot

    return pyplot


def bars(heights: Mapping[str, Mapping[str, float]], label: str, path: Path) -> None:
    """A group of bars for each name, with a line at 1; missing ones are left out."""
    plt = _pyplot()
    names = list(heights)
    series = list(dict.fromkeys(key for row in heights.values() for key in row))
    width = 0.8 / len(series)
    figure, axes = plt.subplots(figsize=(9, 4))
    for index, key in enumerate(series):
        places = [i for i, name in enumerate(names) if key in heights[name]]
        axes.bar(
            [i + index * width for i in places],
            [heights[names[i]][key] for i in places],
            width,
            label=key,
        )
    axes.set_xticks([i + 0.4 - width / 2 for i in range(len(names))], names)
    axes.set_ylabel(label)
    axes.axhline(1, color="black", linewidth=0.6)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def roofline(
    points: Sequence[tuple[float, float]],
    peak: float,
    bandwidth: float | None,
    label: str,
    path: Path,
) -> None:
    """Layers as points of (multiply-adds per byte, speed) below the machine's roof.

    Args:
        peak: in the points' unit; bandwidth: GB/s, a byte's share of the roof, or None.
    """
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(7, 5))
    intensities = [x for x, _ in points]
    ends = [min(intensities, default=1) / 2, max(intensities, default=1) * 2]
    # Two floating-point operations for a multiply-add.
    knee = [] if bandwidth is None else [min(max(peak / bandwidth / 2, ends[0]), ends[1])]
    roof = sorted([*ends, *knee])
    heights = [peak if bandwidth is None else min(peak, 2 * x * bandwidth) for x in roof]
    axes.loglog(roof, heights, color="black", linewidth=1)
    axes.loglog(intensities, [y for _, y in points], "o", markersize=4)
    axes.set_xlabel("multiply-adds per byte")
    axes.set_ylabel(label)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
