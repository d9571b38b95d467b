"""Charts of a report as Vega-Lite specifications, whose colours the page gives.

Source: A. Satyanarayan et al., "Vega-Lite: A Grammar of Interactive Graphics" (2017).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
Spec = dict[str, Any]
Row = Mapping[str, Any]
# Cells of the longest label; longer ones are shortened, and whole where the pointer is.
LABEL = 165
# Names are shortened in the middle: what tells them apart is at their ends. The page changes the
# numbers where it is narrow.
_SHORTENED = (
    "length(datum.label) > 24 ? substring(datum.label, 0, 7) + '…' + "
    "substring(datum.label, length(datum.label) - 16) : datum.label"
)
_STEP = 15
# As wide as the page, whatever labels take.
_WIDE: Spec = {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}


def spec(values: Sequence[Row], mark: Any, height: Any = None, **encoding: Any) -> Spec:
    """A chart as wide as the page."""
    made: Spec = {
        "$schema": SCHEMA,
        **_WIDE,
        "data": {"values": [dict(row) for row in values]},
        "mark": mark,
        "encoding": encoding,
    }
    if isinstance(height, dict):  # so much for every row of a chart of bars
        height = height["step"] * max(len({row["name"] for row in values}), 1)
    return made if height is None else {**made, "height": height}


def _field(name: str, title: str | None, kind: str = "quantitative", **more: Any) -> Spec:
    return {"field": name, "type": kind, "title": title, **more}


def _names(name: str = "name", **more: Any) -> Spec:
    """Rows of a chart of bars, in the order of the values."""
    axis = {"labelLimit": LABEL, "labelExpr": _SHORTENED}
    return _field(name, None, "nominal", sort=None, axis=axis, **more)


def _tips(*pairs: tuple[str, str]) -> list[Spec]:
    return [
        {"field": name, "title": title, **({} if name in _TEXTS else {"format": ",.4~g"})}
        for name, title in pairs
    ]


_TEXTS = {
    "name", "kind", "encoding", "what", "verdict", "label", "layer", "stage", "from", "to",
    "series",
}  # fmt: skip


def bars(rows: Sequence[Row], value: str, title: str, **more: Any) -> Spec:
    """A bar for each row, one below the other."""
    tips = _tips(("name", "layer"), *more.pop("tips", ()), (value, title))
    return spec(
        rows,
        {"type": "bar"},
        {"step": _STEP},
        y=_names(),
        x=_field(value, title),
        tooltip=tips,
        **more,
    )


def time_by_layer(time: Row) -> Spec:
    """Bars of the layers in order, in the colours of their kinds."""
    unit = time["unit"]
    return bars(
        time["rows"],
        "value",
        f"{unit}, {time['kind']}",
        color=_field("kind", None, "nominal", legend={"orient": "top", "columns": 2}),
        tips=(("kind", "kind"), ("macs", "multiply-adds")),
    )


def time_by_kind(time: Row) -> Spec:
    """The same, cumulated."""
    sums: dict[str, float] = defaultdict(float)
    for row in time["rows"]:
        sums[row["kind"]] += row["value"]
    rows = [{"name": k, "value": v} for k, v in sorted(sums.items(), key=lambda item: -item[1])]
    return bars(rows, "value", f"{time['unit']}, {time['kind']}")


def roofline(time: Row) -> Spec | None:
    """Operations in a unit of time over operations for a byte, under what the core can do.

    Source: S. Williams et al., "Roofline: an insightful visual performance model" (2009).
    """
    roof = time["roof"]
    points = [
        {
            "name": row["name"],
            "kind": row["kind"],
            "intensity": 2 * row["macs"] / row["bytes"],
            "rate": 2 * row["macs"] / row["value"] * (1e-3 if time["unit"] == "us" else 1.0),
        }
        for row in time["rows"]
        if row["macs"] and row["bytes"] and row["value"]
    ]
    if roof is None or not points:
        return None
    low = min(p["intensity"] for p in points) / 2
    high = max(*(p["intensity"] for p in points), roof["operations"] / roof["bytes"]) * 2
    ridge = roof["operations"] / roof["bytes"]
    line = [
        {"intensity": x, "rate": min(x * roof["bytes"], roof["operations"])}
        for x in sorted({low, min(max(ridge, low), high), high})
    ]
    x = _field("intensity", "operations for a byte", scale={"type": "log", "nice": False})
    y = _field("rate", roof["unit"], scale={"type": "log"})
    return {
        "$schema": SCHEMA,
        **_WIDE,
        "height": 260,
        "layer": [
            spec(line, {"type": "line"}, x=x, y=y),
            spec(
                points,
                {"type": "point", "filled": True, "size": 60},
                x=x,
                y=y,
                color=_field("kind", None, "nominal", legend={"orient": "top", "columns": 2}),
                tooltip=_tips(
                    ("name", "layer"),
                    ("intensity", "operations for a byte"),
                    ("rate", roof["unit"]),
                ),
            ),
        ],
    }


def inside(group: Row) -> Spec:
    """What the layers of a row-fused group cost by the model."""
    return bars(
        group["layers"], "cycles", "cycles, predicted", tips=(("window_rows", "rows kept"),)
    )


_IN_FILE = "KiB in the file; the tick is the model's"


def weights_by_layer(weights: Row) -> Spec:
    """Bars of the bytes in the file, in colours of their encodings, and ticks of the model's."""
    rows = [
        {**row, "kib": row["file"] / 1024, "own": row["model"] / 1024} for row in weights["rows"]
    ]
    base = bars(
        rows,
        "kib",
        _IN_FILE,
        color=_field("encoding", None, "nominal", legend={"orient": "top", "columns": 1}),
        tips=(("encoding", "encoding"), ("model", "bytes in the model"), ("memory", "in memory")),
    )
    tick = spec(rows, {"type": "tick", "thickness": 2, "size": 13, "color": "#888"}, y=_names(),
                x=_field("own", _IN_FILE))  # fmt: skip
    return _layered(base, tick)


def _layered(*specs: Spec) -> Spec:
    first = specs[0]
    outer = ("$schema", "height", *_WIDE)
    inner = [{k: v for k, v in each.items() if k not in outer} for each in specs]
    return {"$schema": SCHEMA, **_WIDE, "height": first["height"], "layer": inner}


def weights_way(weights: Row) -> Spec:
    """From the weights of the model to the file: what each step adds or takes."""
    rows, at = [], 0
    way = weights["way"]
    for index, step in enumerate(way):
        ends = index in (0, len(way) - 1)
        start = 0 if ends else at
        at = step["bytes"] if ends else at + step["bytes"]
        kind = "whole" if ends else "more" if step["bytes"] >= 0 else "less"
        rows.append(
            {"name": step["what"], "from": start / 1024, "to": at / 1024, "kind": kind,
             "bytes": step["bytes"]}
        )  # fmt: skip
    return spec(
        rows,
        {"type": "bar"},
        {"step": 22},
        y=_names(),
        x=_field("from", "KiB"),
        x2={"field": "to"},
        color=_field("kind", None, "nominal", legend=None),
        tooltip=_tips(("name", "step"), ("bytes", "bytes")),
    )


_STEPS, _ARENA = "step of the network", "KiB of the arena"


def arena(memory: Row) -> Spec:
    """Buffers as the planner placed them: steps across, bytes up."""
    count = len(memory["steps"])
    rows = [
        {
            "label": b["name"],
            "start": max(b["first"], -1),
            "end": min(b["last"], count) + 1,
            "low": b["offset"] / 1024,
            "high": (b["offset"] + b["bytes"]) / 1024,
            "kib": b["bytes"] / 1024,
        }
        for b in memory["buffers"]
    ]
    boxes = spec(
        rows,
        {"type": "rect", "stroke": "#8888", "strokeWidth": 1, "fillOpacity": 0.75},
        280,
        x=_field("start", _STEPS, scale={"nice": False}),
        x2={"field": "end"},
        y=_field("low", _ARENA),
        y2={"field": "high"},
        color=_field("label", None, "nominal", legend=None),
        tooltip=_tips(("label", "buffer"), ("kib", "KiB"), ("start", "from step"), ("end", "to")),
    )
    live = spec(
        [
            {"step": i + 0.5, "kib": v / 1024, "series": "alive"}
            for i, v in enumerate(memory["live"])
        ],
        {"type": "line", "interpolate": "step", "strokeDash": [4, 3], "color": "#888"},
        x=_field("step", _STEPS),
        y=_field("kib", _ARENA),
    )
    return _layered(boxes, live)


def errors(found: Row) -> Spec:
    """Relative errors of the layers, of the class and of ONNX Runtime."""
    rows = []
    for row in found["rows"]:
        for key, series in (("max_rel", "the class"), ("runtime", "ONNX Runtime")):
            if row.get(key):
                rows.append(
                    {"name": row["name"], "series": series, "value": row[key],
                     "of_bound": row["of_bound"]}
                )  # fmt: skip
    return spec(
        rows,
        {"type": "point", "filled": True, "size": 45},
        {"step": _STEP},
        y=_names(),
        x=_field("value", "largest error, of the largest value", scale={"type": "log"},
                 axis={"format": ".0e", "tickCount": 5}),
        color=_field("series", None, "nominal", legend={"orient": "top"}),
        tooltip=_tips(("name", "layer"), ("series", "of"), ("value", "error"),
                      ("of_bound", "of bound")),
    )  # fmt: skip


def snr(rows: Sequence[Row], key: str = "snr_db") -> Spec:
    """Signal over noise by layer, the worst first."""
    known = sorted((row for row in rows if row.get(key) is not None), key=lambda row: row[key])
    named = [{**row, "name": row.get("name", row.get("layer"))} for row in known]
    kept = [{"name": row["name"], "value": row[key]} for row in named]
    return bars(kept, "value", "SNR in dB, the worst first")


def histogram(row: Row) -> Spec | None:
    """Values of a layer and the range that its integers are spent on."""
    counts = row["histogram"]
    width = (row["largest"] - row["smallest"]) / max(len(counts), 1)
    if not counts or width <= 0:
        return None
    cells = [
        {"from": row["smallest"] + width * i, "to": row["smallest"] + width * (i + 1),
         "count": value + 1}
        for i, value in enumerate(counts)
    ]  # fmt: skip
    title = f"{row['layer']}: {row['own_snr_db'] or 0:.1f} dB"
    x = _field("from", title, axis={"tickCount": 4})
    shape = spec(
        cells, {"type": "bar", "binSpacing": 0}, 90, x=x, x2={"field": "to"},
        y=_field("count", "values", scale={"type": "log"}, axis={"tickCount": 3}),
        y2={"datum": 1},
    )  # fmt: skip
    borders = spec(
        [{"at": row["low"]}, {"at": row["high"]}],
        {"type": "rule", "color": "#c33", "strokeWidth": 2},
        x=_field("at", title),
    )
    return _layered(shape, borders)


def passes(rows: Sequence[Row]) -> Spec:
    """Layers that are left after every pass that did something, by its number and name."""
    kept = [
        {**row, "name": f"{number} {row['name']}"}
        for number, row in enumerate(rows, 1)
        if row["change"] or row["rewritten"]
    ]
    return bars(kept, "layers", "layers after the pass", tips=(("rewritten", "layers changed"),))


def ledger(rows: Sequence[Row], what: str) -> Spec:
    """Accuracy over bytes on disk, a point a stage."""
    x = _field("mb", "MB on disk", scale={"zero": True})
    y = _field("share", what, scale={"zero": False}, axis={"format": ".1%"})
    color = _field("stage", None, "nominal", sort=None, legend={"orient": "top", "columns": 2})
    return spec(
        rows,
        {"type": "point", "filled": True, "size": 90},
        240,
        x=x,
        y=y,
        color=color,
        shape={"field": "stage", "type": "nominal", "sort": None},
        tooltip=_tips(("stage", "stage"), ("mb", "MB"), ("share", what)),
    )


def compared(figures: Sequence[Row], names: Sequence[str], unit: str) -> Spec:
    """A figure of each of two classes for every layer that either has, side by side."""
    rows = []
    for series, values in zip(names, figures, strict=True):
        rows += [{"name": name, "series": series, "value": value} for name, value in values.items()]
    return spec(
        rows,
        {"type": "bar"},
        {"step": 20},
        y=_names(),
        yOffset={"field": "series", "sort": None},
        x=_field("value", unit),
        color=_field("series", None, "nominal", sort=None, legend={"orient": "top", "columns": 1}),
        tooltip=_tips(("name", "layer"), ("series", "of"), ("value", unit)),
    )
