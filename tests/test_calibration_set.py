"""Sets of inputs from folders and NPZ files, and their classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph
from mdlc.compiler.ops.input import graph_input
from mdlc.inputs.preprocess import Preprocess
from mdlc.precision.calibration_set import InputSet, labelled

PIXELS = graph_input("x", (1, 3, 4, 4))
GRAPH = Graph((PIXELS,), (PIXELS,), ("y",))
TWO = Graph((PIXELS, graph_input("t", (1, 2))), (PIXELS,), ("y",))


def of(source: object, graph: Graph = GRAPH) -> InputSet:
    return InputSet(graph, Preprocess(), source)  # type: ignore[arg-type]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for index, name in enumerate(["b.png", "a.png", "c.jpg"]):
        Image.new("RGB", (5, 7), (10 * index, 1, 2)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_a_folder_of_pictures_by_name(pictures: Path) -> None:
    found = [frame["x"][0, 0, 0, 0] for frame in of(pictures)]
    assert found[:2] == [10, 0]
    assert len(found) == 3


def test_a_set_is_read_anew_every_time(pictures: Path) -> None:
    inputs = of(pictures)
    assert len(list(inputs)) == len(list(inputs)) == 3


@pytest.mark.parametrize(
    ("shape", "count"), [((1, 3, 4, 4), 1), ((7, 3, 4, 4), 7), ((7, 1, 3, 4, 4), 7)]
)
def test_arrays_of_one_or_many(tmp_path: Path, shape: tuple[int, ...], count: int) -> None:
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    np.savez(tmp_path / "x.npz", x=values)
    found = list(of(tmp_path / "x.npz"))
    assert len(found) == count
    np.testing.assert_array_equal(
        np.concatenate([f["x"].reshape(-1) for f in found]), values.reshape(-1)
    )


def test_several_inputs_go_together(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((5, 3, 4, 4), np.float32), t=np.ones((5, 2), "f4"))
    assert [set(frame) for frame in of(tmp_path / "x.npz", TWO)] == [{"x", "t"}] * 5


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"x": np.zeros((2, 3, 4, 5), "f4"), "t": np.zeros((2, 2), "f4")}, "has shape"),
        ({"x": np.zeros((2, 3, 4, 4), "f4"), "t": np.zeros((3, 2), "f4")}, r"hold \[2, 3\]"),
        ({"x": np.zeros((2, 3, 4, 4), "f4")}, "no value for input 't'"),
        ({"x": np.zeros((0, 3, 4, 4), "f4"), "t": np.zeros((0, 2), "f4")}, "empty"),
    ],
    ids=["shape", "numbers", "missing", "empty"],
)
def test_bad_arrays_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], reason: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(MdlcError, match=reason):
        list(of(tmp_path / "x.npz", TWO))


def test_bad_folders_are_refused(tmp_path: Path, pictures: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MdlcError, match="no pictures in this folder"):
        list(of(tmp_path / "empty"))
    (pictures / "d.png").write_bytes(b"not a picture")
    with pytest.raises(MdlcError, match=r"d\.png: is not a readable picture"):
        list(of(pictures))
    with pytest.raises(MdlcError, match="the set is empty"):
        list(of([]))


def test_classes_of_pictures(pictures: Path) -> None:
    labels = pictures / "labels.csv"
    labels.write_text("file,class,name\nc.jpg,7,x\nelsewhere.png,3,y\na.png,1,z\n")
    assert [label for _, label in labelled(of(pictures), labels)] == [1, 7]
    labels.write_text("b.png,4\n")
    assert [label for _, label in labelled(of(pictures), labels)] == [4]


def test_classes_of_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((3, 3, 4, 4), np.float32))
    (tmp_path / "labels.csv").write_text("5\n0\n2\n")
    assert [c for _, c in labelled(of(tmp_path / "x.npz"), tmp_path / "labels.csv")] == [5, 0, 2]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("file,class\n", "holds no classes"),
        ("a.png\nb.png,1\n", "line 2|no class"),
        ("a.png,-3\n", "'-3' is not a class"),
        ("zzz.png,3\n", "names no picture"),
    ],
)
def test_bad_classes_are_refused(pictures: Path, text: str, reason: str) -> None:
    labels = pictures / "labels.csv"
    labels.write_text(text + ("c.jpg\n" if text.startswith("a.png\n") else ""))
    with pytest.raises(MdlcError, match=reason):
        labelled(of(pictures), labels)
    with pytest.raises(MdlcError, match="no such file"):
        labelled(of(pictures), pictures / "none.csv")
