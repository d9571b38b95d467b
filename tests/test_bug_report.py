"""Bug reports: what is in them, and that weights are not."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import mdlc
from mdlc.bug_report import FEW, bug_report, without_weights
from mdlc.cli import invoke
from mdlc.compiler.onnx_import import import_model
from tests.emitted_code import block_model
from tests.shared_data import SHARED
from tests.test_api import DIGITS
from tests.test_left_out import eight_bits, floats


def opened(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("model", [block_model(), floats(), eight_bits(), onnx.load(DIGITS)],
                         ids=["block", "floats", "bytes", "digits"])  # fmt: skip
def test_weights_are_not_in_it(model: onnx.ModelProto) -> None:
    model.doc_string = "secret"
    model.metadata_props.add(key="author", value="secret")
    model.graph.node[0].doc_string = "secret"
    made = without_weights(model)
    large = 0
    for old, new in zip(model.graph.initializer, made.graph.initializer, strict=True):
        assert (old.name, old.dims, old.data_type) == (new.name, new.dims, new.data_type)
        a, b = numpy_helper.to_array(old), numpy_helper.to_array(new)
        if a.size > FEW:
            large += 1
            assert (a.astype(np.float64) == b.astype(np.float64)).mean() < 0.1
        else:
            np.testing.assert_array_equal(a, b)
    assert large
    assert b"secret" not in made.SerializeToString()
    assert [n.op_type for n in made.graph.node] == [n.op_type for n in model.graph.node]
    before, after = import_model(model), import_model(made)
    assert [str(n.op) for n in before.order() if n.inputs] == [
        str(n.op) for n in after.order() if n.inputs
    ]


def test_constants_that_are_attributes() -> None:
    weights = np.random.default_rng(0).standard_normal((8, 16)).astype(np.float32)
    tensor = numpy_helper.from_array(weights)
    node = onnx.helper.make_node("Constant", [], ["w"], value=tensor)
    floats_ = onnx.helper.make_node("Constant", [], ["v"], value_floats=weights.reshape(-1))
    graph = onnx.helper.make_graph([node, floats_], "g", [], [])
    made = without_weights(onnx.helper.make_model(graph))
    assert weights.tobytes()[:64] not in made.SerializeToString()
    assert len(made.graph.node[1].attribute[0].floats) == 128


def test_outcomes() -> None:
    def broken() -> Any:
        raise ValueError("of all things")

    def refused() -> Any:
        raise mdlc.MdlcError("is not to be", node="n")

    found = {
        how.__name__: opened(bug_report(block_model(), "mdlc x", how))["outcome.txt"].decode()
        for how in (broken, refused)
    }
    assert "internal error: ValueError: of all things" in found["broken"]
    assert "test_bug_report.py:" in found["broken"]
    assert "/" not in found["broken"].partition("the model")[0]
    assert found["refused"].startswith("refused: n: is not to be")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.zip"
    line = ["bug-report", str(DIGITS), "-t", "generic", "--mean", "1", "-o", str(path)]
    assert invoke(line) == 0
    first = path.read_bytes()
    assert invoke(line) == 0
    assert path.read_bytes() == first
    entries = opened(first)
    assert set(entries) == {"environment.txt", "command.txt", "outcome.txt", "model.onnx"}
    assert entries["command.txt"] == b"mdlc digits_mobilenet.onnx --target generic --mean=1\n"
    assert b"16 layers" in entries["outcome.txt"]
    assert len(first) < len(DIGITS.read_bytes()) // 4
    everything = b"".join(entries.values())
    assert str(Path.home()).encode() not in everything
    assert str(SHARED.parent).encode() not in everything


def test_versions(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["--version"]) == 0
    assert capsys.readouterr().out == "mdlc, version 0.1.0\n"
    assert invoke(["--version", "--verbose"]) == 0
    told = capsys.readouterr().out
    for sentence in ("mdlc 0.1.0\n", "\nPython 3.", "\n  onnx ", "\n  generic: "):
        assert sentence in told
