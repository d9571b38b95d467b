"""Calibration over sets of inputs, and the table as a file."""

import json
from pathlib import Path

import numpy as np
import pytest

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.interpreter import evaluate
from mdlc.compiler.ir import Graph
from mdlc.compiler.types import Array
from mdlc.quantization.calibrate import calibrate, tensor_keys
from mdlc.quantization.table import load_table, make_table
from tests.passes.ir import graph

NET = """
    %x: f32[1,2,4,4] = Input() "x"
    %w: f32[3,2,1,1] = Random(1)
    %b: f32[3] = Random(2)
    %y: f32[1,3,4,4] = Conv2D()(%x, %w, %b) "y"
    %z: f32[1,3,4,4] = Relu()(%y) "z"
    return out=%z
"""


def net() -> Graph:
    return graph(NET)


def frames(count: int) -> list[dict[str, Array]]:
    rng = np.random.default_rng(1)
    return [{"x": rng.uniform(-1, 1, (1, 2, 4, 4)).astype(np.float32)} for _ in range(count)]


def test_statistics_are_those_of_all_values() -> None:
    source, inputs = net(), frames(11)
    found = calibrate(source, iter(inputs))
    keys = tensor_keys(source)
    for node, key in keys.items():
        values = np.concatenate([evaluate(source, i)[node].reshape(-1) for i in inputs])
        histogram = found[key].histogram
        assert (histogram.low, histogram.high) == (values.min(), values.max())
        assert histogram.total == values.size
        assert found[key].runs == 11
    assert list(found) == ["x", "y", "z"]


def test_names_that_repeat_are_told_apart() -> None:
    source = graph("""
        %x: f32[3] = Input() "x"
        %1: f32[3] = Relu()(%x)
        %2: f32[3] = Sigmoid()(%1)
        %3: f32[3] = Relu()(%2)
        return y=%3
    """)
    assert list(tensor_keys(source).values()) == ["x", "relu", "sigmoid", "relu#2"]


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ([], "the calibration set is empty"),
        ([{"x": np.zeros((1, 2, 4, 4), np.float32)}] * 2, "only zeros"),
        ([*frames(5), {"x": np.full((1, 2, 4, 4), np.nan, np.float32)}], "number 6 .* NaN"),
        ([{"x": np.ones((1, 2, 4, 5), np.float32)}], "shape"),
        ([{"y": np.ones((1, 2, 4, 4), np.float32)}], "no value for input 'x'"),
    ],
    ids=["empty", "zeros", "nan", "shape", "name"],
)
def test_bad_sets_are_refused(inputs: list[dict[str, Array]], reason: str) -> None:
    with pytest.raises(MdlcError, match=reason):
        calibrate(net(), inputs)


def test_a_network_that_overflows_is_refused() -> None:
    source = graph("""
        %x: f32[3] = Input() "x"
        %1: f32[3] = Exp()(%x) "grown"
        return y=%1
    """)
    inputs = [{"x": np.full(3, 100, np.float32)}]
    with np.errstate(over="ignore"), pytest.raises(MdlcError, match=r"'grown'.*NaN or infinity"):
        calibrate(source, inputs)


def test_a_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    table = make_table(calibrate(net(), frames(3)), "mse")
    path = tmp_path / "table.json"
    path.write_text(table.dumps(), encoding="utf-8")
    assert load_table(path) == table
    assert table.runs == 3
    assert table.tensors["z"].low == 0


def test_an_edited_table_is_read(tmp_path: Path) -> None:
    given = json.loads(make_table(calibrate(net(), frames(3)), "minmax").dumps())
    given["tensors"]["y"] = {"low": -2, "high": 3.5}
    path = tmp_path / "table.json"
    path.write_text(json.dumps(given), encoding="utf-8")
    found = load_table(path).tensors["y"]
    assert (found.low, found.high, found.smallest, found.histogram) == (-2.0, 3.5, -2.0, ())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not JSON"),
        ("[]", "is not a calibration table"),
        ('{"format": "mdlc calibration table", "version": 9}', "version 9, not 1"),
        ('{"format": "mdlc calibration table", "version": 1}', "holds no tensors"),
    ],
)
def test_damaged_tables_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "table.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(MdlcError, match=reason):
        load_table(path)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ('{"low": 1, "high": 2}', "leaves out zero"),
        ('{"low": "a", "high": 2}', "not a number"),
        ('{"low": -1}', "high is None"),
        ('{"low": -Infinity, "high": 2}', "low is -inf"),
        ("3", "is not a JSON object"),
        ('{"low": -1, "high": 2, "histogram": [-3]}', "not a list of counts"),
    ],
)
def test_bad_ranges_are_refused(tmp_path: Path, entry: str, reason: str) -> None:
    path = tmp_path / "table.json"
    head = '{"format": "mdlc calibration table", "version": 1, "tensors": {"y": '
    path.write_text(head + entry + "}}", encoding="utf-8")
    with pytest.raises(MdlcError, match=rf"tensor 'y'.*{reason}"):
        load_table(path)


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MdlcError, match="no such file"):
        load_table(tmp_path / "none.json")
