"""Draws docs/speed.svg from a table of docs/benchmarks.md: `python docs/plots.py`."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
HEADING = "## Standard networks against ncnn, MNN, OpenVINO and ONNX Runtime"
ENGINES = ("mdlc", "ONNX Runtime", "OpenVINO", "ncnn", "MNN")
COLOURS = ("#2563a8", "#e0803a", "#3fa66b", "#b06ac9", "#8a8f98")


def rows() -> list[dict[str, object]]:
    """Milliseconds by network and engine: the first table under the heading, one thread."""
    text = (HERE / "benchmarks.md").read_text(encoding="utf-8").split(HEADING)[1]
    found: list[dict[str, object]] = []
    for line in text.split("\n\n")[1].splitlines()[2:]:
        network, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        for engine, cell in zip(ENGINES, cells, strict=False):
            found.append({"network": network, "engine": engine, "ms": float(cell)})
    return found


def svg() -> str:
    """The plot: times as multiples of mdlc's, so that networks of all sizes can be compared."""
    import vl_convert

    values = rows()
    own = {row["network"]: float(str(row["ms"])) for row in values if row["engine"] == "mdlc"}
    for row in values:
        row["times"] = float(str(row["ms"])) / own[row["network"]]
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "title": {
            "text": "Time of an inference, as a multiple of mdlc's (shorter is faster)",
            "subtitle": "float32, 224x224, one thread, Zen 5 with AVX-512, 2026-11-25; "
            "python -m benchmarks.peers --target x86-avx512 --rounds 9 --repeats 5",
            "anchor": "start",
        },
        "background": "white",
        "width": 620,
        "height": {"step": 10},
        "data": {"values": values},
        "mark": "bar",
        "encoding": {
            "y": {"field": "network", "type": "nominal", "sort": None, "title": None},
            "yOffset": {"field": "engine", "sort": list(ENGINES)},
            "x": {"field": "times", "type": "quantitative", "title": None},
            "color": {
                "field": "engine",
                "type": "nominal",
                "sort": list(ENGINES),
                "scale": {"domain": list(ENGINES), "range": list(COLOURS)},
                "title": None,
                "legend": {"orient": "right"},
            },
            "description": {"field": "ms", "type": "quantitative"},
        },
    }
    return re.sub(r"\s+$", "\n", str(vl_convert.vegalite_to_svg(spec, vl_version="6.4")))


if __name__ == "__main__":
    (HERE / "speed.svg").write_text(svg(), encoding="utf-8")
