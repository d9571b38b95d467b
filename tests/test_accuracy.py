"""mdlc accuracy: metrics of labelled pictures, continued and in parts, and what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from mdlc.checks.metrics import edits
from mdlc.cli import invoke
from tests.onnx_models import model, node, value, weight

# Pictures of one colour; the class is the strongest channel, and one label is wrong.
COLOURS = {"a": (200, 30, 20), "b": (10, 180, 30), "c": (30, 20, 90), "d": (120, 119, 0)}
CLASSES = {"a": 0, "b": 1, "c": 2, "d": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    identity = np.eye(3).reshape(3, 3, 1, 1)
    nodes = [node("Conv", "x w", "maps"), node("GlobalAveragePool", "maps", "mean"),
             node("Flatten", "mean", "scores")]  # fmt: skip
    onnx.save(
        model(nodes, [value("x", (1, 3, 8, 8))], [value("scores", (1, 3))],
              [weight("w", identity)]),
        tmp_path / "colours.onnx",
    )  # fmt: skip
    onnx.save(
        model(nodes[:1], [value("x", (1, 3, 8, 8))], [value("maps", (1, 3, 8, 8))],
              [weight("w", identity)]),
        tmp_path / "maps.onnx",
    )  # fmt: skip
    (tmp_path / "data").mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (8, 8), colour).save(tmp_path / "data" / f"{name}.png")
    rows = [f"{name}.png,{label}" for name, label in CLASSES.items()]
    (tmp_path / "labels.csv").write_text("\n".join(["file,class", *rows]))
    return tmp_path


def _words(folder: Path, *more: str, network: str = "colours", metric: str = "top1") -> list[str]:
    words = ["accuracy", str(folder / f"{network}.onnx"), "-t", "generic"]
    words += ["--data", str(folder / "data"), "--metric", metric, "--json"]
    words += [] if "--data-labels" in more else ["--data-labels", str(folder / "labels.csv")]
    words += [] if "--table" in more else ["--table", str(folder / "table.jsonl")]
    return [*words, *more]


def _figures(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_float_and_int8_side_by_side(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calibrate = ["--quantize", "int8", "--calibrate", str(folder / "data"), "--jobs", "2"]
    calibrate += ["--placement", "everywhere"]
    assert invoke(_words(folder, *calibrate)) == 0
    found = _figures(capsys)
    assert found["pictures"] == 4
    assert found["float"] == found["int8"] == {"top1": 0.75, "top5": 1.0}


def test_parts_are_merged_and_runs_continued(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = [folder / f"{part}.jsonl" for part in (1, 2)]
    for part, path in enumerate(tables, 1):
        assert invoke(_words(folder, "--shard", f"{part}/2", "--table", str(path))) == 0
        assert _figures(capsys)["pictures"] == 2
    # A run that was killed leaves a line that is cut off: the picture is computed again.
    text = tables[0].read_text()
    tables[0].write_text(text[:-5])
    assert invoke(_words(folder, "--shard", "1/2", "--table", str(tables[0]))) == 0
    _figures(capsys)
    assert tables[0].read_text().count('"file"') == 3
    # Everything is known: the pictures themselves are not looked at.
    for name in COLOURS:
        (folder / "data" / f"{name}.png").write_bytes(b"")
    merge = [word for path in tables for word in ("--merge", str(path))]
    assert invoke(_words(folder, *merge)) == 0
    assert _figures(capsys)["float"]["top1"] == 0.75


def test_masks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "masks").mkdir()
    for name, label in CLASSES.items():
        mask = np.full((8, 8), label, np.uint8)
        mask[0] = 255  # not counted
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
    labels = ["--data-labels", str(folder / "masks"), "--answer", "mask"]
    assert invoke(_words(folder, *labels, network="maps", metric="miou")) == 0
    # Class 0: found in a and d, of which d is 1; class 1: b of b and d; class 2: all.
    assert _figures(capsys)["float"]["miou"] == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)


def test_boxes_by_coco(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A detector whose boxes are a picture's colours: x, y, right, bottom of one box a cell."""
    boxes = {"a": (1, 2, 5, 6), "b": (0, 0, 8, 4), "c": (3, 3, 6, 7), "d": (2, 2, 4, 5)}
    for name, box in boxes.items():
        pixels = np.zeros((8, 8, 4), np.uint8)
        pixels[0, 0] = box
        Image.fromarray(pixels, "RGBA").save(folder / "data" / f"{name}.png")
    onnx.save(
        model(
            [node("Conv", "x w", "boxes"), node("Conv", "x s b", "scores")],
            [value("x", (1, 4, 8, 8))],
            [value("boxes", (1, 4, 8, 8)), value("scores", (1, 1, 8, 8))],
            [weight("w", np.eye(4).reshape(4, 4, 1, 1)), weight("s", np.full((1, 4, 1, 1), 0.01)),
             weight("b", [0.3])],
        ),
        folder / "finder.onnx",
    )  # fmt: skip
    given = {
        name: [box[0], box[1], box[2] - box[0], box[3] - box[1]] for name, box in boxes.items()
    }
    given["d"] = [5, 5, 2, 2]  # not found
    table = {
        "images": [{"id": n, "file_name": f"{name}.png", "width": 8, "height": 8}
                   for n, name in enumerate(boxes, 1)],
        "categories": [{"id": 7, "name": "thing"}],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 7, "bbox": box, "area": box[2] * box[3],
             "iscrowd": 0}
            for n, box in enumerate(given.values(), 1)
        ],
    }  # fmt: skip
    (folder / "coco.json").write_text(json.dumps(table))
    answer = "boxes,scores=scores,boxes=boxes,form=ltrb,threshold=0.31,suppression=none"
    words = [
        "--data-labels",
        str(folder / "coco.json"),
        "--answer",
        answer,
        "--input-format",
        "rgba8",
    ]
    assert invoke(_words(folder, *words, network="finder", metric="map")) == 0
    found = _figures(capsys)["float"]
    # Three of four are found; the wrong one has the third best score of four.
    order = sorted(boxes, key=lambda name: -sum(boxes[name]))
    hits = np.cumsum([name != "d" for name in order])
    precision = hits / np.arange(1, 5)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    recall = hits / 4
    expected = np.mean([precision[recall >= r - 1e-9].max(initial=0)
                        for r in np.linspace(0, 1, 101)])  # fmt: skip
    assert found["ap50"] == pytest.approx(expected)
    table["categories"].append({"id": 8, "name": "other"})
    (folder / "coco.json").write_text(json.dumps(table))
    assert invoke(_words(folder, *words, network="finder", metric="map")) == 2
    assert "has 2 categories, and the network tells 1 classes apart" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [("", "", 0), ("abc", "abc", 0), ("kitten", "sitting", 3), ("", "ab", 2)],
)
def test_edits(a: str, b: str, distance: int) -> None:
    assert edits(a, b) == edits(b, a) == distance


@pytest.mark.parametrize(
    ("more", "metric", "told"),
    [
        (["--shard", "3/2"], "top1", "--shard: '3/2' is not a shard"),
        (
            ["--data-labels", "nowhere.csv"],
            "top1",
            "--data-labels nowhere.csv: there is no such file",
        ),
        ([], "miou", "is not a folder of masks"),
        ([], "map", "is not a file of COCO's annotations"),
        ([], "cer", "has no columns file and text"),
        (["--label-offset", "2"], "top1", "b.png is of class 1, and the network has 3"),
        (["--data-labels", "short.csv"], "top1", "short.csv: has a line that ends too early"),
        (["--data-labels", "odd.json"], "map", "entry 1 of annotations has no proper id"),
        (["--shard", "5/5"], "top1", "--shard: has no pictures"),
        (["--table", "labels.csv/x"], "top1", "cannot be written: labels.csv is not a folder"),
        (["--merge", "nowhere.jsonl"], "top1", "nowhere.jsonl: is not a readable table"),
        (["--table", "labels.csv"], "top1", "labels.csv: is a table of another model"),
    ],
)
def test_what_does_not_fit_is_told_before_work(
    more: list[str], metric: str, told: str, folder: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(folder)
    Path("short.csv").write_text("file,class\na.png\n")
    Path("odd.json").write_text('{"images": [], "annotations": [{}], "categories": []}')
    assert invoke(_words(folder, *more, metric=metric)) == 2
    assert told in capsys.readouterr().err
    assert not (folder / "table.jsonl").exists()


def test_a_picture_without_a_label_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (8, 8)).save(folder / "data" / "z.png")
    assert invoke(_words(folder)) == 2
    assert "1 of 5 pictures have no label; the first is z.png" in capsys.readouterr().err
    words = _words(folder, metric="cer")
    (folder / "labels.csv").write_text("file,text\na.png,x\n")
    assert invoke(words) == 2
    assert "--metric cer: needs a class that answers with text" in capsys.readouterr().err
