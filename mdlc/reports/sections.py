"""What a report says: sections of a page made of its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mdlc.compiler.words import byte_count, counted
from mdlc.reports import charts
from mdlc.reports.form import MEASURED
from mdlc.reports.page import Chart, Details, Figure, Page, Section, Table, mib

Row = Mapping[str, Any]


def number(value: float | None, digits: int = 3) -> str:
    """A figure for people: 1.23 M, 45.6, 0.0078; nothing where there is none."""
    if value is None:
        return ""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= size:
            scaled = value / min(size, 1e3 if unit == " k" else size)
            return f"{scaled:.{digits}g}{unit}"
    return f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:.0f}"


def page(found: Row, before: str, after: str) -> Page:
    """The page of one class.

    Args:
        found: see gather. before, after: pictures of the graph as SVG.
    """
    time = found["time"]
    total = sum(row["value"] for row in time["rows"])
    took = (
        f"{time['whole'] / 1e3:.3f} ms, measured"
        if time["kind"] == MEASURED
        else f"{number(total)} cycles, predicted"
    )
    facts = {
        "an inference": took,
        "multiply-adds": number(found["macs"]),
        "weights file": byte_count(found["weights"]["file"]),
        "arena": byte_count(found["arena"]["bytes"]),
        "code": code_size(found["code"]),
    }
    sections = [
        how_fast(found),
        how_big(found),
        how_right(found),
        what_happened(found, before, after),
    ]
    subtitle = f"for {found['target']}, {found['precision']}, from {found['model']}"
    return Page(found["name"], subtitle, facts, sections)


def code_size(code: Row) -> str:
    """Of machine code, or of the text where it was not built."""
    text = sum(row["bytes"] for row in code["files"])
    return f"{byte_count(text)} of text" if code["machine"] is None else byte_count(code["machine"])


def how_fast(found: Row) -> Section:
    """Time by layer and by kind, roofline, insides of row-fused groups."""
    time = found["time"]
    measured = time["kind"] == MEASURED
    told = (
        [f"Measured on this machine, built by {time['compiler']}: medians, in microseconds."]
        if measured
        else [
            f"Predicted, not measured: {found['target']} does not run on this machine natively. "
            f"These are cycles of one core ({time['processor'] or found['target']}) by the cost "
            "model that chooses the kernels."
        ]
    )
    told += [f"{note[0].upper()}{note[1:]}." for note in time["notes"]]
    total = sum(row["value"] for row in time["rows"]) or 1.0
    parts: list[Any] = [
        Chart("By layer, in order", charts.time_by_layer(time)),
        Chart("By kind", charts.time_by_kind(time)),
    ]
    roof = charts.roofline(time)
    if roof is not None:
        parts.append(
            Chart(
                "Roofline: what the core can do at most, by operations for a byte of memory; "
                "layers that find their data in a cache may lie above the slope, and Winograd's "
                "above the roof",
                roof,
            )
        )
    rows = sorted(time["rows"], key=lambda row: -row["value"])
    parts.append(
        Table(
            "Table: layers, the slowest first",
            ("layer", "kind", time["unit"], "share", "multiply-adds"),
            [
                (
                    row["name"],
                    row["kind"],
                    number(row["value"]),
                    f"{100 * row['value'] / total:.1f} %",
                    number(row["macs"]),
                )
                for row in rows
            ],
            frozenset({2, 3, 4}),
        )
    )
    for group in found["groups"]:
        parts.append(
            Chart(
                f"Inside {group['name']}: {counted(len(group['layers']), 'layer')} in bands of "
                f"{counted(group['rows'], 'row')} (predicted)",
                charts.inside(group),
            )
        )
    return Section("How fast", told, parts)


def how_big(found: Row) -> Section:
    """Weights, from the model to the file, code, arena."""
    weights, code, arena = found["weights"], found["code"], found["arena"]
    way = weights["way"]
    told = [
        f"The model has {mib(way[0]['bytes'])} of weights, the file {mib(weights['file'])}, "
        f"memory {mib(weights['memory'])}.",
    ]
    grown = next(step for step in way if "Winograd" in step["what"])["bytes"]
    if grown > 0:
        told.append(
            f"Transformed filters take {mib(grown)} more than the filters themselves: "
            "--optimise size stores filters, which Init transforms."
        )
    parts: list[Any] = [
        Chart("From the model to the file", charts.weights_way(weights)),
        Table(
            "Table: from the model to the file",
            ("step", "bytes"),
            [(step["what"], f"{step['bytes']:,}") for step in way],
            frozenset({1}),
        ),
    ]
    if weights["rows"]:
        parts.append(Chart("Weights by layer", charts.weights_by_layer(weights)))
        parts.append(
            Table(
                "Table: weights by layer",
                ("layer", "model", "memory", "file", "encoding"),
                [
                    (
                        r["name"],
                        f"{r['model']:,}",
                        f"{r['memory']:,}",
                        f"{r['file']:,}",
                        r["encoding"],
                    )
                    for r in weights["rows"]
                ],
                frozenset({1, 2, 3}),
            )
        )
    parts.append(
        Chart(
            f"The arena over time: {mib(arena['bytes'])}, at least {mib(arena['bound'])} by what "
            "is alive at once (dashed)",
            charts.arena(arena),
        )
    )
    parts.append(
        Table(
            "Table: buffers of the arena",
            ("buffer", "offset", "bytes", "from step", "to step"),
            [
                (b["name"], f"{b['offset']:,}", f"{b['bytes']:,}", str(b["first"]), str(b["last"]))
                for b in arena["buffers"]
            ],
            frozenset({1, 2, 3, 4}),
        )
    )
    machine = code["machine"]
    parts.append(
        Table(
            "Code: "
            + ("not built here" if machine is None else f"{byte_count(machine)} of machine code"),
            ("file", "bytes", "lines"),
            [(f["name"], f"{f['bytes']:,}", f"{f['lines']:,}") for f in code["files"]],
            frozenset({1, 2}),
            opened=True,
        )
    )
    return Section("How big", told, parts)


def how_right(found: Row) -> Section:
    """Errors by layer, and what 8 bits cost."""
    errors, int8 = found["errors"], found["int8"]
    told: list[str] = []
    parts: list[Any] = []
    if not errors["rows"]:
        told.append(f"Errors were {errors['note']}.")
    elif errors["kind"] == "integers":
        wrong = sum(1 for row in errors["rows"] if row["differing"])
        told.append(
            f"Layers in 8 bits must have exactly the integers of the reference: of "
            f"{len(errors['rows'])} layers {wrong or 'none'} differ "
            f"({counted(errors['runs'], 'input')})."
        )
        if any(row["snr_db"] is not None for row in errors["rows"]):
            parts.append(Chart("Signal over noise against the model", charts.snr(errors["rows"])))
        parts.append(
            Table(
                "Table: layers in 8 bits",
                ("layer", "operator", "elements", "differ", "SNR dB"),
                [
                    (
                        r["name"],
                        r["kind"],
                        f"{r['elements']:,}",
                        str(r["differing"]),
                        number(r["snr_db"]),
                    )
                    for r in errors["rows"]
                ],
                frozenset({2, 3, 4}),
            )
        )
    else:
        off = [row["name"] for row in errors["rows"] if row["verdict"].startswith("OFF")]
        told.append(
            f"Every layer is within its bound ({counted(errors['runs'], 'input')})."
            if not off
            else f"Layers beyond their bound: {', '.join(off)}."
        )
        parts.append(Chart("Error by layer against double precision", charts.errors(errors)))
        parts.append(
            Table(
                "Table: errors by layer",
                ("layer", "operator", "relative", "SNR dB", "ONNX Runtime", "of bound", ""),
                [
                    (r["name"], r["kind"], number(r["max_rel"]), number(r["snr_db"]),
                     number(r["runtime"]), number(r["of_bound"]), r["verdict"])
                    for r in errors["rows"]
                ],
                frozenset({2, 3, 4, 5}),
            )
        )  # fmt: skip
    if int8 is not None and int8["note"]:
        told.append(f"What 8 bits cost by layer was {int8['note']}.")
    if int8 is not None and int8["rows"]:
        parts += int8_parts(int8["rows"])
    return Section("How right", told, parts)


HISTOGRAMS = 12


def int8_parts(rows: Sequence[Row]) -> list[Any]:
    """Signal over noise of layers in 8 bits, the worst first, and their ranges."""
    parts: list[Any] = [
        Chart("What each layer in 8 bits loses by itself", charts.snr(rows, "own_snr_db")),
        Table(
            "Table: layers in 8 bits, the worst first",
            ("layer", "operator", "own SNR dB", "SNR dB", "clipped", "range"),
            [
                (
                    row["layer"],
                    row["operator"],
                    number(row["own_snr_db"]),
                    number(row["snr_db"]),
                    f"{100 * row['clipped']:.3f} %",
                    f"{row['low']:.4g} .. {row['high']:.4g}",
                )
                for row in rows
            ],
            frozenset({2, 3, 4}),
        ),
    ]
    for row in rows[:HISTOGRAMS]:
        drawn = charts.histogram(row)
        if drawn is not None:
            parts.append(Chart(f"Values of {row['layer']} and the range kept", drawn))
    return parts


def what_happened(found: Row, before: str, after: str) -> Section:
    """Graphs before and after, passes, and why each layer is as it is."""
    passes = found["passes"]
    kept = [row for row in passes if row["change"] or row["rewritten"]]
    entries = [_layer(row) for row in found["layers"]]
    return Section(
        "What happened",
        [f"Of {len(passes)} passes {len(kept) or 'none'} changed the graph."],
        [
            Figure("The model as imported, with what stands in front", before),
            Figure("What code was made from", after),
            *(
                [Chart("Layers after each pass that changed something", charts.passes(passes))]
                if kept
                else []
            ),
            Table(
                "Table: what each pass did",
                ("pass", "layers", "came and went", "changed", "ms"),
                [
                    (
                        row["name"],
                        str(row["layers"]),
                        ", ".join(f"{kind} {change:+}" for kind, change in row["change"].items()),
                        str(row["rewritten"] or ""),
                        f"{1e3 * row['seconds']:.1f}",
                    )
                    for row in passes
                ],
                frozenset({1, 3, 4}),
            ),
            Details("Why each layer is computed as it is", entries),
        ],
    )


def _changes(passes: Sequence[Row], kept: Sequence[Row]) -> list[Chart]:
    title = "Layers after each pass that changed something"
    return [Chart(title, charts.passes(passes))] if kept else []


def _layer(row: Row) -> tuple[str, list[str], Table]:
    lines = [f"{row['op']} -> {row['output']}, {number(row['macs'])} multiply-adds"]
    lines.append(
        f"tensor {row['tensor']}" + (f", from node {row['origin']}" if row["origin"] else "")
    )
    if row["fused"]:
        lines.append(f"does the work of {', '.join(row['fused'])}")
    if row["bands"]:
        lines.append(row["bands"])
    if row["precision"]:
        lines.append(
            f"computed in {row['precision']['where']} {row['precision']['reason']}".rstrip()
        )
    lines.append(f"chosen by {row['chosen_by']} from {counted(row['candidates'], 'candidate')}")
    ways = Table(
        "",
        ("", "kernel", "schedule", "cycles", "measured"),
        [
            (
                "✓" if w["won"] else "",
                w["kernel"],
                w["schedule"],
                number(w["cycles"]),
                number(w["measured"]),
            )
            for w in row["ways"]
        ],
        frozenset({3, 4}),
        opened=True,
    )
    return row["name"], lines, ways
