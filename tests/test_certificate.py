"""Certificates: what they say, that they hold, and that they tell what does not."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import mdlc
from mdlc.checks.certificate import certificate, differences, from_files, seeded
from mdlc.checks.sbom import sbom
from mdlc.cli import invoke
from mdlc.codegen.target import find_target
from mdlc.commands.options import options_from
from tests.emitted_code import block_model, require
from tests.test_left_out import eight_bits


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model, its class and its certificate."""
    require("g++")
    folder = tmp_path_factory.mktemp("certificate")
    onnx.save(block_model(), folder / "block.onnx")
    line = [str(folder / "block.onnx"), "-t", "generic", "-o", str(folder), "--certificate"]
    assert invoke(line) == 0
    return folder


@pytest.fixture(scope="module")
def found(made: Path) -> dict[str, Any]:
    return dict(json.loads((made / "Block.certificate.json").read_text()))


def test_it_says_what_was_measured(found: dict[str, Any], made: Path) -> None:
    assert found["command"] == "mdlc block.onnx --target generic"
    beside = {path.name for path in made.iterdir()}
    assert set(found["files"]) == beside - {"block.onnx", "Block.certificate.json"}
    (target,) = found["targets"]
    assert target["memory"]["infer_allocates_by"] == []
    assert 0 < target["memory"]["infer_stack_bytes"] < 4096
    (size,) = target["sizes"]
    assert size["within_bounds"]
    steps = mdlc.compile(block_model(), "generic").plan.steps
    assert [layer["layer"] for layer in size["layers"]] == [step.name for step in steps]
    for layer in size["layers"]:
        assert 0 <= layer["error"] <= layer["bound"] < 1e-3
        assert layer["of_bound"] <= 1
        assert layer["worst_input"] in range(4)
    (output,) = size["outputs"]
    assert output["error"] <= output["bound"]


def test_it_holds_and_tells_what_does_not(
    found: dict[str, Any], made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = made / "Block.certificate.json"
    line = ["verify", str(made / "block.onnx"), "--certificate", str(path)]
    assert invoke(line) == 0
    assert "holds: 8 files" in capsys.readouterr().out
    changed = copy.deepcopy(found)
    (target,) = changed["targets"]
    target["sizes"][0]["layers"][1]["error"] *= 2
    target["memory"]["arena_bytes"] += 64
    changed["files"]["Block.h"]["sha256"] = "0" * 64
    path.write_text(json.dumps(changed))
    assert invoke(line) == 1
    told = capsys.readouterr().out
    for sentence in (
        "Block.h beside the certificate is another",
        "Block.h: compiling again makes another file",
        "target generic: arena_bytes:",
        "target generic: layer 'dw_c': error",
    ):
        assert sentence in told
    assert len(told.splitlines()) == 4
    path.write_text(json.dumps(found))


def test_what_differs(found: dict[str, Any]) -> None:
    assert differences(found, found) == []
    other = copy.deepcopy(found)
    other["mdlc"] = "9"
    other["targets"][0]["memory"] |= {"compiler": "g++ 99", "code_bytes": 1}
    other["targets"][0]["sizes"][0]["layers"][0]["fault"] = "relative error 1 in this layer"
    told = differences(found, other)
    assert told == [
        "mdlc: 0.1.0, here 9",
        "target generic: layer 'stem_c': relative error 1 in this layer",
    ]
    other["targets"][0]["name"] = "arm-neon"
    assert "target generic was not checked here" in differences(found, other)


def test_eight_bits_are_equal_on_all_targets() -> None:
    require("g++")
    compiled = mdlc.compile(eight_bits(), "host", name="Bytes")
    (target,) = certificate(compiled, seeded(compiled, count=1))["targets"]
    assert target["int8"]["equal"]
    assert len(target["int8"]["outputs_sha256"]) == 1 + (target["name"] != "generic")
    assert {layer["differ_from_reference"] for layer in target["sizes"][0]["layers"]} == {0}


def test_data() -> None:
    compiled = mdlc.compile(block_model(), "generic")
    again = seeded(compiled), seeded(compiled)
    for one, other in zip(again[0].inputs, again[1].inputs, strict=True):
        assert np.array_equal(one["image"], other["image"])
    assert not again[0].inputs[2]["image"].any()
    extremes = again[0].inputs[3]["image"]
    assert set(np.unique(np.abs(extremes))) == {np.abs(again[0].inputs[0]["image"]).max()}
    data = from_files(again[0].inputs, Path("pictures"), 2)
    assert data.told["count"] == 2
    assert data.told != from_files(again[0].inputs[1:], Path("pictures"), 2).told


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not a certificate of mdlc"),
        ("[]", "is not a certificate of mdlc"),
        ('{"targets": [], "files": {}, "format": 2}', "has format 2, not 1"),
    ],
)
def test_what_is_no_certificate(
    text: str, sentence: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    assert invoke(["verify", str(made / "block.onnx"), "--certificate", str(path)]) == 2
    assert sentence in capsys.readouterr().err


def test_options_from_a_header(tmp_path: Path) -> None:
    options = mdlc.CompileOptions("generic", threads=3, mean=(1.0, -2.0), passes="-fuse_pad")
    line = options.command_line("model.onnx", [find_target("generic")])
    assert options_from(line.split()[2:], tmp_path) == options
    with pytest.raises(mdlc.MdlcError, match="No such option"):
        options_from(["--newer-than-this"], tmp_path)


def test_bill_of_materials() -> None:
    pytest.importorskip("cyclonedx", reason="needs cyclonedx-python-lib")
    from cyclonedx.model.bom import Bom

    compiled = mdlc.compile(block_model(), "generic", name="Block")
    text = sbom(compiled)
    assert text == sbom(mdlc.compile(block_model(), "generic", name="Block"))
    document = json.loads(text)
    assert document["specVersion"] == "1.6"
    whole = document["metadata"]["component"]
    listed = {each["name"]: each["hashes"][0]["content"] for each in whole["components"]}
    manifest = json.loads(compiled.files()["Block.json"])
    for name, entry in manifest["files"].items():
        assert listed[name] == entry["sha256"]
    parsed = Bom.from_json(document)
    assert {each.name for each in parsed.components} == {"block.onnx"}


def test_bill_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cyclonedx.model", None)
    with pytest.raises(mdlc.MdlcError, match="--sbom: needs cyclonedx-python-lib; pip install"):
        sbom(mdlc.compile(block_model(), "generic"))
