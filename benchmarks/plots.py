"""Plots of the benchmarks, as SVG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click


def bars(heights: Mapping[str, Mapping[str, float]], label: str, path: Path) -> None:
    """A group of bars for each name, with a line at 1; missing ones are left out."""
    try:
        import matplotlib
    except ImportError:
        raise click.ClickException("a plot needs matplotlib: pip install matplotlib") from None
    matplotlib.use("svg")
    import matplotlib.pyplot as plt

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
