"""Exit codes: 0 done, 1 verification failed, 2 the user's input, 3 a bug of mdlc."""

from __future__ import annotations

from pathlib import Path

import pytest

import mdlc
from mdlc.cli import invoke

DIGITS = str(Path(__file__).parent.parent / "examples" / "digits_mobilenet.onnx")
Captured = pytest.CaptureFixture[str]


def _broken(*arguments: object, **keywords: object) -> None:
    raise KeyError("left out")


def test_a_bug_is_one_line_that_says_what_to_report(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MDLC_DEBUG", raising=False)
    monkeypatch.setattr(mdlc, "compile", _broken)
    assert invoke([DIGITS]) == 3
    told = capsys.readouterr().err
    assert told.startswith("mdlc: internal error: KeyError: 'left out' (test_exit_codes.py:")
    assert "please report this line with the command and the model" in told
    assert told.count("\n") == 1


def test_the_traceback_is_shown_on_demand(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MDLC_DEBUG", "1")
    monkeypatch.setattr(mdlc, "compile", _broken)
    assert invoke([DIGITS]) == 3
    told = capsys.readouterr().err
    assert "Traceback (most recent call last)" in told
    assert "in _broken" in told


def test_bad_input_is_no_bug(capsys: Captured) -> None:
    assert invoke([DIGITS, "--target", "aarch64"]) == 2
    assert "did you mean arm-neon, or one of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "meant"), [("compil", "compile"), ("verfy", "verify"), ("benc", "bench")]
)
def test_a_misspelt_command_is_answered_with_the_nearest(
    word: str, meant: str, capsys: Captured
) -> None:
    assert invoke([word, DIGITS]) == 2
    assert f"did you mean `mdlc {meant}`?" in capsys.readouterr().err


def test_a_file_named_like_a_command_is_a_model(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("compil").write_bytes(b"no model")
    assert invoke(["compil"]) == 2
    assert "not an ONNX model" in capsys.readouterr().err
