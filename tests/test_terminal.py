"""What the command line shows: tables that fit, help of one screen, faults told before the work."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path

import click
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image
from rich.cells import cell_len

import mdlc
from mdlc.checks.benchmark import Benchmark, LayerTime, notes
from mdlc.cli import cli, invoke
from mdlc.commands.tables import Column, Sheet, laid_out, number
from mdlc.shown import best_classes

EXAMPLES = Path(__file__).parent.parent / "examples"
DIGITS = str(EXAMPLES / "digits_mobilenet.onnx")
DIGIT = str(EXAMPLES / "digit.png")
LABELS = str(EXAMPLES / "digits_labels.txt")
GRAY = ("--input-format", "gray8", "--mean", "128", "--std", "64")
Captured = pytest.CaptureFixture[str]
WIDTH = 80
SCREEN = 52


def refused(capsys: Captured, *arguments: str) -> str:
    """Runs a command that must be refused in one sentence; returns it."""
    assert invoke(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    return shown.err


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused must be refused before anything is compiled."""

    def compiled(*arguments: object, **keywords: object) -> None:
        raise AssertionError("the work began")

    monkeypatch.setattr(mdlc, "compile", compiled)


# ------------------------------------------------------------------------------------- tables


def _sheet(names: list[str], values: list[float | None]) -> Sheet:
    columns = (
        Column("name", "layer", least=12),
        Column("kernel", "kernel", least=8, rank=2),
        number("time", "us", lambda v: f"{v:.1f}"),
        number("share", "% time", lambda v: f"{v:.1f}", bar=True, rank=1),
    )
    rows = [
        {"name": name, "kernel": f"conv_{name}", "time": value, "share": value}
        for name, value in zip(names, values, strict=True)
    ]
    return Sheet(columns, rows, {"name": "sum", "time": 1.0})


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=90)


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.tuples(TEXT, st.none() | st.floats(0, 1e6)), min_size=1, max_size=6),
    st.integers(40, 120),
)
def test_a_table_is_no_wider_than_the_terminal(
    rows: list[tuple[str, float | None]], width: int
) -> None:
    table = _sheet([name for name, _ in rows], [value for _, value in rows])
    lines, hidden = laid_out(table, width)
    assert len(lines) == len(rows) + 2
    assert all(cell_len(line) <= width and "\n" not in line for line in lines)
    assert {column.key for column in hidden} <= {"kernel", "share"}
    whole, nothing = laid_out(table, None)
    assert not nothing
    assert all(name in line for (name, _), line in zip(rows, whole[1:], strict=False))


def test_bars_are_as_long_as_shares() -> None:
    lines, _ = laid_out(_sheet(["a", "b", "c"], [100.0, 50.0, None]), WIDTH)
    assert [line.count("█") for line in lines] == [0, 10, 5, 0, 0]


def test_rows_are_sorted_numbers_down_texts_up() -> None:
    table = _sheet(["b", "c", "a"], [1.0, None, 2.0])
    assert [row["name"] for row in table.sorted("time").rows] == ["a", "b", "c"]
    assert [row["name"] for row in table.sorted("name").rows] == ["a", "b", "c"]


def test_infinities_are_no_json() -> None:
    (record,) = _sheet(["a"], [math.inf]).records()
    assert record["time"] is None


@pytest.mark.parametrize("command", ["inspect", "verify", "explain", "targets"])
def test_json_and_csv_say_the_same(capsys: Captured, command: str) -> None:
    words = [command] if command == "targets" else [command, DIGITS, "-t", "generic"]
    words = ["inspect", DIGITS] if command == "inspect" else words
    assert invoke([*words, "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert invoke([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    if command == "explain":
        listed = [w for layer in found["layers"] for w in layer["ways"] if w["won"]]
        assert [w["schedule"] for w in listed] == [
            row["schedule"] for row in rows if row["won"] == "True"
        ]
        return
    listed = found["targets" if command == "targets" else "layers"]
    assert len(rows) == len(listed) > 5
    for row, each in zip(rows, listed, strict=True):
        assert all(row[key] == ("" if value is None else str(value)) for key, value in each.items())


def test_sorting(capsys: Captured) -> None:
    assert invoke(["inspect", DIGITS, "--sort", "macs", "--json"]) == 0
    macs = [layer["macs"] for layer in json.loads(capsys.readouterr().out)["layers"]]
    assert macs == sorted(macs, reverse=True)
    assert "macs" in refused(capsys, "inspect", DIGITS, "--sort", "mac")
    assert "--json" in refused(capsys, "inspect", DIGITS, "--json", "--csv")


def _benchmark(total: float, *gflops: float) -> Benchmark:
    layers = tuple(LayerTime(f"l{i}", "k", "s", "t", 10.0, 10, g) for i, g in enumerate(gflops))
    return Benchmark("N", "t", "g++", False, 1, total, 1, 1.0, 100.0, 1, 1, 1, layers)


def test_figures_that_look_wrong_are_explained() -> None:
    assert notes(_benchmark(20.5, 50, 60)) == []
    (winograd,) = notes(_benchmark(20.5, 107, 60))
    assert "Winograd" in winograd
    (odd,) = notes(_benchmark(30.0, 50, 60))
    assert "0.020 ms" in odd
    assert "0.030 ms" in odd


# --------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("name", ["", *cli.commands])
def test_help_is_one_screen_with_an_example(capsys: Captured, name: str) -> None:
    assert invoke([*filter(None, [name]), "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= SCREEN
    assert all(len(line) <= WIDTH for line in lines)
    assert not any(line.endswith("...") for line in lines if not line.startswith("Usage"))
    assert any(line.strip().startswith("Example: mdlc ") for line in lines[:6])


@pytest.mark.parametrize("name", list(cli.commands))
def test_every_option_is_named_and_explained(capsys: Captured, name: str) -> None:
    assert invoke([name, "--help"]) == 0
    short = re.sub(r"\s+", " ", capsys.readouterr().out)
    options = [p for p in cli.commands[name].params if isinstance(p, click.Option)]
    assert all(option.opts[-1] in short for option in options)
    if "--help-all" in short:
        assert invoke([name, "--help-all"]) == 0
        full = re.sub(r"\s+", "", capsys.readouterr().out)
        assert all(re.sub(r"\s+", "", option.help or "") in full for option in options)


# ---------------------------------------------------------------------------------------- run


def test_run_prints_probabilities_time_and_memory(capsys: Captured) -> None:
    words = ["run", DIGITS, *GRAY, "--input", DIGIT, "--labels", LABELS]
    assert invoke([*words, "-v"]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert re.fullmatch(r" +\d+\.\d{4} +(9\d|100)\.\d %  7", lines[1])
    assert re.search(r"[\d.]+ ms an inference on \S+, [\d.]+ KiB of working memory", shown.err)
    assert invoke([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["runs"][0]["outputs"][0]["classes"][0]["label"] == "7"
    assert found["milliseconds"] > 0


@pytest.mark.parametrize(
    ("scores", "shares"),
    [
        ([1.0, 3.0, 2.0], np.exp([3.0, 2.0, 1.0]) / np.exp([3.0, 2.0, 1.0]).sum()),
        ([0.2, 0.5, 0.3], [0.5, 0.3, 0.2]),  # probabilities already
        ([0.9, 0.8, 0.7], [None, None, None]),  # of classes that do not exclude each other
        ([math.nan, 3.0, 2.0], [None, None, None]),
    ],
)
def test_probabilities(scores: list[float], shares: list[float | None]) -> None:
    _, found = best_classes(np.array([scores]), None)
    for each, share in zip(found, shares, strict=True):
        assert each["probability"] == (None if share is None else pytest.approx(share))


# ---------------------------------------------------------------------- faults and their kinds


@pytest.mark.parametrize("variable", ["MDLC_CXX", "MDLC_CXX_GENERIC", "CXX"])
@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("nosuchcc", "there is no program 'nosuchcc'"),
        ("nosuchcc -O2", "there is no program 'nosuchcc'"),
        ("'g++", "is not a command"),
        ("true", "compiled nothing"),
    ],
)
def test_compilers_that_are_none(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, variable: str, command: str, told: str
) -> None:
    for other in ("MDLC_CXX", "MDLC_CXX_GENERIC", "CXX"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(variable, command)
    words = ("run", DIGITS, "-t", "generic", *GRAY, "--input", DIGIT)
    assert told in refused(capsys, *words)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("class", "reserved word of C++"),
        ("co_await", "reserved word of C++"),
        ("NULL", "name of the C library"),
        ("uint8_t", "name of the C library"),
        ("main", "part of every emitted class"),
        ("3d", "not a valid C++ class name"),
        ("a__b", "not a valid C++ class name"),
    ],
)
@pytest.mark.usefixtures("no_work")
def test_names_that_no_class_can_have(capsys: Captured, name: str, told: str) -> None:
    assert told in refused(capsys, DIGITS, "--name", name)


def _classifier(path: Path, classes: int) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["x"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("MatMul", ["f", "w"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, classes])],
        [onnx.numpy_helper.from_array(np.ones((3, classes), np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)


@pytest.mark.parametrize(
    ("names", "hint"), [(10, "name every class"), (1000, "background"), (1002, "background")]
)
@pytest.mark.parametrize("answers", [False, True])
def test_labels_of_another_network(
    capsys: Captured, tmp_path: Path, names: int, hint: str, answers: bool
) -> None:
    _classifier(tmp_path / "m.onnx", 1001)
    (tmp_path / "names.txt").write_text("".join(f"n{i}\n" for i in range(names)))
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
    more = ["--answer", "classes"] if answers else []
    told = refused(
        capsys, "run", str(tmp_path / "m.onnx"), "--input", str(tmp_path / "x.png"),
        "--labels", str(tmp_path / "names.txt"), *more,
    )  # fmt: skip
    assert f"{names} names for a network of 1001 classes" in told
    assert hint in told
    if answers:
        words = ["--answer", f"classes,labels={tmp_path / 'names.txt'}", "-o", str(tmp_path / "o")]
        assert "1001 classes" in refused(capsys, str(tmp_path / "m.onnx"), *words)


def _pictures(folder: Path) -> Path:
    folder.mkdir()
    Image.new("L", (32, 32), 9).save(folder / "a.png")
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:-30])
    (folder / "c.jpg").write_bytes(b"not a picture")
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ("verify", DIGITS, *GRAY, "--inputs", "{set}"),
        (DIGITS, *GRAY, "--quantize", "int8", "--calibrate", "{set}"),
        (DIGITS, *GRAY, "-t", "arm-neon+fp16", "--precision", "fp16", "--calibrate", "{set}"),
        ("compress", DIGITS, *GRAY, "--prune-channels", "0.5", "--test", "{set}"),
        ("compress", DIGITS, *GRAY, "--prune-channels", "0.5", "--calibrate", "{set}"),
    ],
)
@pytest.mark.usefixtures("no_work")
def test_folders_of_unreadable_pictures(
    capsys: Captured, tmp_path: Path, words: tuple[str, ...]
) -> None:
    folder = _pictures(tmp_path / "set")
    told = refused(capsys, *(word.format(set=folder) for word in words))
    assert "b.png: is not a readable picture, nor are 1 more of 3" in told


@pytest.mark.parametrize(
    "words",
    [
        (DIGITS, "-o", "{bad}"),
        (DIGITS, "--depfile", "{bad}"),
        (DIGITS, "--dump", "{bad}"),
        (DIGITS, "--quantize", "int8", "--calibrate", "x.npz", "--quantization-report", "{bad}"),
        (DIGITS, "--quantize", "int8", "--calibrate", "x.npz", "--calibration-table", "{bad}"),
        ("run", DIGITS, "--input", DIGIT, "--output", "{bad}"),
        ("run", DIGITS, "--input", DIGIT, "--draw", "{bad}"),
        ("inspect", DIGITS, "--svg", "{bad}"),
        ("tune", DIGITS, "--table", "{bad}"),
        ("doctor", DIGITS, "--write-samples", "{bad}"),
        ("compress", DIGITS, "--prune-channels", "0.5", "--report", "{bad}"),
        ("compress", DIGITS, "--prune-channels", "0.5", "--work", "{bad}"),
        ("compress", DIGITS, "--prune-channels", "0.5", "-o", "{bad}"),
        ("package", "cmake", DIGITS, "-o", "{bad}"),
        ("pipeline", "two.toml", "-o", "{bad}"),
        ("bug-report", DIGITS, "-o", "{bad}"),
        ("report", DIGITS, "-o", "{bad}"),
        ("demo", DIGITS, "-o", "{bad}"),
    ],
)
@pytest.mark.usefixtures("no_work")
def test_paths_that_cannot_be_written(
    capsys: Captured, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "file").write_text("")
    bad = tmp_path / "file" / "x.png"
    told = refused(capsys, *(word.format(bad=bad) for word in words))
    assert f"cannot be written: {tmp_path / 'file'} is not a folder" in told


@pytest.mark.parametrize("share", ["0", "2", "nan"])
def test_shares_of_channels(capsys: Captured, tmp_path: Path, share: str) -> None:
    work = tmp_path / "work"
    told = refused(capsys, "compress", DIGITS, "--prune-channels", share, "--work", str(work))
    assert f"a share of {share} of the channels would" in told
    assert not list(work.glob("*"))


def test_a_picture_of_the_graph_instead_of_the_table(capsys: Captured, tmp_path: Path) -> None:
    picture = tmp_path / "g.svg"
    assert invoke(["inspect", DIGITS, "--stage", "assign_layout", "--svg", str(picture)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    text = picture.read_text()
    assert "3x3" in text
    assert "stride 2" in text
    assert "KiB" in text
