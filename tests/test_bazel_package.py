"""The package for Bazel: its action twice, in two sandboxes of two output bases."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import external_data_helper

import mdlc
from mdlc.compiler.errors import MdlcError
from mdlc.package.write import write_package
from tests.emitted_code import block_model, require

DIGITS = Path(__file__).parent.parent / "examples" / "digits_mobilenet.onnx"
PICTURES = {"input_format": "gray8", "mean": 128, "std": 64}


def test_the_action_gives_the_same_bytes_in_every_sandbox(tmp_path: Path) -> None:
    bazel = require("bazel")
    compiled = mdlc.compile(DIGITS, "generic", name="Digits", c_api=True, **PICTURES)
    package = tmp_path / "package"
    write_package("bazel", compiled, package)
    tool = Path(sys.executable).parent / "mdlc"
    found = []
    for number in range(2):
        base = f"--output_base={tmp_path / f'base{number}'}"
        links = tmp_path / f"links{number}-"
        words = [bazel, base, "build", f"--repo_env=MDLC={tool}", "--spawn_strategy=sandboxed"]
        words += [f"--symlink_prefix={links}", "//:digits_class", "//:digits_weights"]
        try:
            done = subprocess.run(words, cwd=package, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            assert "sandbox" in done.stderr
            made = (Path(f"{links}bin") / "digits_class").iterdir()
            found.append({p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in made})
        finally:
            subprocess.run([bazel, base, "shutdown"], cwd=package, check=False)
    assert found[0] == found[1]
    # What a compilation by hand gives.
    for name, data in compiled.files().items():
        if name.startswith("Digits") and not name.endswith(".json"):
            assert found[0][name] == hashlib.sha256(data).hexdigest(), name


def test_the_rule_declares_what_mdlc_writes(tmp_path: Path) -> None:
    compiled = mdlc.compile(DIGITS, "android", name="Digits", c_api=True, **PICTURES)
    write_package("bazel", compiled, tmp_path)
    assert not list(tmp_path.rglob("*.cpp"))
    assert (tmp_path / "digits_mobilenet.onnx").read_bytes() == DIGITS.read_bytes()
    scope: dict[str, object] = {"fail": pytest.fail}
    text = (tmp_path / "mdlc.bzl").read_text()
    exec(text[text.index("_ENDINGS") : text.index("def _mdlc_class_impl")], scope)
    targets = [plan.isa.name for plan in compiled.plans]
    endings = scope["_endings"](targets)  # type: ignore[operator]
    assert {f"Digits{ending}" for ending in (*endings, ".weights", ".json")} == {
        name for name in compiled.files() if name.startswith("Digits")
    }
    build = (tmp_path / "BUILD.bazel").read_text()
    assert f'targets = ["{targets[0]}", ' in build
    assert 'options = ["--input-format", "gray8", "--mean=128", "--std=64"]' in build


def test_what_it_cannot_hold_is_told(tmp_path: Path) -> None:
    model = block_model()
    for weights in model.graph.initializer:
        external_data_helper.set_external_data(weights, "weights.bin")
    onnx.save(model, tmp_path / "block.onnx", save_as_external_data=True, size_threshold=0)
    outside = mdlc.compile(tmp_path / "block.onnx", "generic")
    with pytest.raises(MdlcError, match="holds the model's one file"):
        write_package("bazel", outside, tmp_path)
    (tmp_path / "labels.txt").write_text("\n".join(map(str, range(10))))
    answer = f"classes,labels={tmp_path / 'labels.txt'}"
    with pytest.raises(MdlcError, match="names a file that a package for Bazel does not hold"):
        write_package("bazel", mdlc.compile(DIGITS, "generic", answer=answer), tmp_path)
