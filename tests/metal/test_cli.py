"""The command line with --target metal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from mdlc.cli import invoke
from tests.emitted_code import block_model, image
from tests.metal.programs import mixed_model, require_clang


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "block.onnx"
    onnx.save(block_model(), path)
    return path


def test_compile_writes_all_files(model: Path, tmp_path: Path) -> None:
    assert (
        invoke([str(model), "--target", "metal", "--name", "Net", "-o", str(tmp_path / "o")]) == 0
    )
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == [
        "CMakeLists.txt", "Net.cpp", "Net.h", "Net.json", "Net.metal", "Net.swift",
        "Net.weights", "Net_c.cpp", "Net_c.h", "Package.swift", "module.modulemap",
    ]  # fmt: skip


def test_run_prints_the_answer(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require_clang()
    np.savez(tmp_path / "x.npz", image=image())
    code = invoke(["run", str(model), "-t", "metal", "--input", str(tmp_path / "x.npz")])
    assert code == 0
    assert "class 6" in capsys.readouterr().out.splitlines()[1]


def test_verify_finds_every_layer_within_half_precision(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require_clang()
    assert invoke(["verify", str(model), "-t", "metal"]) == 0
    assert "every layer is within its bound" in capsys.readouterr().out


def test_explain_estimates_kernels_and_network(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["explain", str(model), "-t", "metal"]) == 0
    out = capsys.readouterr().out
    assert "half and" in out
    assert "the whole network:" in out
    assert "A15" in out
    assert "direct 1x4" in out


@pytest.mark.parametrize("command", ["bench", "tune"])
def test_what_measures_is_refused(
    command: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke([command, str(model), "-t", "metal"]) == 2
    assert "simulator" in capsys.readouterr().err


def test_targets_lists_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["targets"]) == 0
    assert "metal" in capsys.readouterr().out


def test_missing_operators_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(mixed_model(), tmp_path / "mixed.onnx")
    code = invoke([str(tmp_path / "mixed.onnx"), "-t", "metal", "-o", str(tmp_path / "o")])
    assert code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "Cast" in error
    assert "Exp" in error
    assert "Log" in error
    assert not (tmp_path / "o").exists()
