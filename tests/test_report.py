"""Reports: their figures, their pages, and the pictures of graphs in them."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mdlc
from mdlc.cli import invoke
from mdlc.compiler.ir import Node, make
from mdlc.compiler.ops.input import graph_input
from mdlc.compiler.ops.relu import Relu
from mdlc.compress.ledger import Entry, Ledger, write_ledger
from mdlc.drawing import BOX_HEIGHT, BOX_WIDTH
from mdlc.reports import charts, gather
from mdlc.reports.layout import layered
from mdlc.reports.page import Chart, Page, Section, Table, bundle
from mdlc.reports.sections import how_fast, number

DIGITS = Path(__file__).parent.parent / "examples" / "digits_mobilenet.onnx"
Captured = pytest.CaptureFixture[str]
VOID = {"meta", "link", "br", "hr", "img", "input", "path", "rect"}


class Checked(HTMLParser):
    """Reads a page: elements must nest; keeps texts, links and the charts' specifications."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.charts: list[dict[str, Any]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "data", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            if data.lstrip().startswith("{"):
                self.charts.append(json.loads(data))
        else:
            self.text += data


def checked(page: bytes) -> Checked:
    reader = Checked()
    reader.feed(page.decode())
    reader.close()
    assert reader.open == []
    outside = [link for link in reader.links if not link.startswith(("#", "data:"))]
    assert outside == []
    assert not re.search(rb"url\((?!data:|#)|@import", page)
    return reader


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a class that runs here; what draws its charts is a stand-in."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mdlc.reports.page.bundle", lambda: "/* the bundle */")
        words = [str(DIGITS), "-t", "generic", "-o", str(folder / "digits.html")]
        assert invoke(["report", *words]) == 0
    return folder / "digits.html"


def test_the_page_is_whole_and_loads_nothing(report: Path) -> None:
    page = checked(report.read_bytes())
    for heading in ("How fast", "How big", "How right", "What happened"):
        assert heading in page.text
    assert "Measured on this machine" in page.text
    assert "Every layer is within its bound" in page.text
    assert len(page.charts) >= 8


def test_every_chart_has_data_and_draws_it(report: Path) -> None:
    vl_convert = pytest.importorskip("vl_convert", reason="the report extra is not installed")
    for spec in checked(report.read_bytes()).charts:
        layers = spec.get("layer", [spec])
        assert all(layer["data"]["values"] for layer in layers)
        drawn = vl_convert.vegalite_to_svg({**spec, "width": 500}, vl_version="6.4")
        marks = re.findall(r'<(?:path|line) aria-label="', drawn)
        assert len(marks) >= len(layers[0]["data"]["values"]) or "mark-line" in drawn


def test_figures_are_those_of_the_class(report: Path) -> None:
    found = json.loads(report.with_suffix(".json").read_text())
    compiled = mdlc.compile(DIGITS, "generic")
    files = compiled.files()
    way = found["weights"]["way"]
    assert sum(step["bytes"] for step in way[:-1]) == way[-1]["bytes"]
    assert way[-1]["bytes"] == len(files["DigitsMobilenet.weights"])
    assert found["macs"] == compiled.plan.macs == sum(r["macs"] for r in found["time"]["rows"])
    assert found["time"]["kind"] == "measured"
    arena = found["arena"]
    assert max(b["offset"] + b["bytes"] for b in arena["buffers"]) <= arena["bytes"]
    assert max(arena["live"]) <= arena["bound"] <= arena["bytes"]
    assert [row["verdict"] for row in found["errors"]["rows"]].count("ok") >= 15
    stem = found["layers"][0]
    kinds = [text.split()[0] for text in stem["fused"]]
    assert kinds == ["Conv2D", "BatchNormalization", "Clip"]
    assert sum(way["won"] for way in stem["ways"]) == 1
    changes = [row["change"].get("BatchNormalization", 0) for row in found["passes"]]
    assert sum(changes) == min(changes) == -13


def test_what_does_not_run_here_is_marked_as_predicted() -> None:
    plan = mdlc.compile(DIGITS, "arm-neon").plan
    time = gather.times(plan, None)
    assert time["kind"] == "predicted"
    assert sum(row["value"] for row in time["rows"]) == pytest.approx(
        sum(step.cycles(plan.backend) for step in plan.steps)
    )
    groups = gather.row_groups(plan)
    told = how_fast({"time": time, "groups": groups, "target": "arm-neon"})
    assert told.paragraphs[0].startswith("Predicted, not measured")
    assert charts.roofline(time) is not None


@pytest.mark.parametrize("encoding", ["raw", "int8+huffman"])
def test_the_way_from_the_model_to_the_file_adds_up(encoding: str) -> None:
    compiled = mdlc.compile(DIGITS, "arm-neon", weights_encoding=encoding)
    files = compiled.files()
    way = gather.weights(compiled, files)["way"]
    total = len(files["DigitsMobilenet.weights"])
    assert sum(step["bytes"] for step in way[:-1]) == way[-1]["bytes"] == total
    assert abs(next(s for s in way if s["what"] == "header, alignment")["bytes"]) < 0.2 * total


def test_two_reports_side_by_side(report: Path, tmp_path: Path, capsys: Captured) -> None:
    first = report.with_suffix(".json")
    other = json.loads(first.read_text())
    other["target"], other["time"]["unit"] = "arm-neon", "cycles"
    second = tmp_path / "other.json"
    second.write_text(json.dumps(other))
    words = ["report", "--compare", str(first), str(second), "-o", str(tmp_path / "both.html")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mdlc.reports.page.bundle", lambda: "/* the bundle */")
        assert invoke(words) == 0
    page = checked((tmp_path / "both.html").read_bytes())
    assert "generic and arm-neon" in page.text
    assert "not drawn beside each other" in page.text
    assert len(page.charts) == 2
    capsys.readouterr()
    for less in ({}, {key: value for key, value in other.items() if key != "target"}):
        second.write_text(json.dumps(less))
        assert invoke(words) == 2
        assert "is not a report" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "there is no MODEL"),
        ((str(DIGITS), "--compare", "a.json", "b.json"), "takes no MODEL"),
        (("--compare", "a.json", "b.json"), "a.json: there is no such file"),
        ((str(DIGITS), "-t", "android"), "one target at a time"),
        ((str(DIGITS), "--input", "absent"), "absent: there is no such file"),
        ((str(DIGITS), "-o", "figures.json"), "is where the figures go"),
    ],
)
def test_bad_input(capsys: Captured, words: tuple[str, ...], told: str) -> None:
    assert invoke(["report", *words]) == 2
    assert told in capsys.readouterr().err


def test_without_the_extra(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mdlc.reports.page.can_draw", lambda: False)
    assert invoke(["report", str(DIGITS)]) == 2
    assert "pip install 'mdlc[report]'" in capsys.readouterr().err
    section = Section("S", ["<p>"], [Chart("c", {}), Table("t", ["a"], [["<b>"]])])
    page = checked(Page("T", "", {}, [section]).html())
    assert "Charts are left out" in page.text
    assert "<b>" in page.text
    assert page.charts == []


def test_the_bundle_can_stand_in_a_page() -> None:
    pytest.importorskip("vl_convert", reason="the report extra is not installed")
    script = bundle()
    assert "mdlcEmbed" in script
    assert script == bundle()
    assert len(script) < 2_000_000


def _entry(stage: str, **figures: Any) -> Entry:
    return Entry(stage, "note", 1000, 2000, 10, 20, 1.0, **figures)


def test_a_ledger_without_samples_claims_no_accuracy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mdlc.reports.page.bundle", lambda: "/* the bundle */")
    bare = Ledger("m", "t", 0, (_entry("original"), _entry("pruned")))
    (html, _) = write_ledger(tmp_path / "a", bare)
    page = checked(html.read_bytes())
    assert "100" not in page.text.replace("1000", "").replace("0.001", "")
    assert "Accuracy was not measured" in page.text
    assert [len(spec["data"]["values"]) for spec in page.charts] == [2]
    known = Ledger("m", "t", 9, (_entry("original", agreement=1.0), _entry("x", agreement=0.9)))
    (html, _) = write_ledger(tmp_path / "b", known)
    page = checked(html.read_bytes())
    assert len(page.charts) == 2
    assert "90.00 %" in page.text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (0.00123, "0.00123"), (687000, "687 k"), (12345, "12.3 k"), (4567, "4567"),
     (2.5e6, "2.5 M"), (3e9, "3 G"), (-0.5, "-0.5")],
)  # fmt: skip
def test_figures_for_people(value: float | None, text: str) -> None:
    assert number(value) == text


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=25))
def test_boxes_stand_apart_and_data_flows_down(sources: list[tuple[int, int]]) -> None:
    """Any graph: node i reads up to two of those before it, and some read none."""
    nodes: list[Node] = [graph_input("x", (1, 2))]
    flow: nx.DiGraph = nx.DiGraph()
    flow.add_node(nodes[0])
    for number_, pair in enumerate(sources):
        made = make(Relu(), nodes[pair[0] % len(nodes)], name=f"n{number_}")
        flow.add_node(made)
        for index in set(pair):
            if index % 7:
                flow.add_edge(nodes[index % len(nodes)], made)
        nodes.append(made)
    corner, _ = layered(flow)
    assert set(corner) == set(flow.nodes)
    places = list(corner.values())
    for i, (x, y) in enumerate(places):
        for a, b in places[:i]:
            assert abs(x - a) >= BOX_WIDTH or abs(y - b) >= BOX_HEIGHT
    for source, node in flow.edges:
        assert corner[node][1] >= corner[source][1] + BOX_HEIGHT
