"""The emitted text of a small network, as a reviewer reads it.

`UPDATE_GOLDEN=1 pytest tests/test_golden.py` renews the files in tests/golden/.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

import mdlc
from tests.emitted_code import block_model
from tests.golden_models import mixed_model
from tests.test_header import several_model

GOLDEN = Path(__file__).parent / "golden"
# What is not text, or full of digests of the text.
NOT_TEXT = (".weights", ".json")


def without_version(text: str) -> str:
    """The text for any version of mdlc, and for any serialisation of the model."""
    compiled = text.replace(f"mdlc {mdlc.__version__}", "mdlc VERSION")
    lines = compiled.splitlines(keepends=True)
    return "".join("//   SHA-256    ...\n" if "SHA-256" in line else line for line in lines)


@pytest.mark.parametrize("target", ["arm-neon", "x86-avx2"])
def test_text_is_as_reviewed(target: str) -> None:
    _compare(target, mdlc.compile(block_model(), target, name="Block").files())


def test_text_of_most_kinds_of_layers_is_as_reviewed() -> None:
    """Long names, a row-fused group, Winograd, 8 bits and threads."""
    compiled = mdlc.compile(mixed_model(), "x86-avx2", name="Mixed", threads=2, optimise="speed")
    kinds = {step.kernel.name for step in compiled.plan.steps}
    assert {"conv_winograd", "quantized_conv"} <= kinds
    assert len(compiled.plan.units()[0]) == 3
    files = compiled.files()
    files = {name: text for name, text in files.items() if name.startswith("Mixed")}
    _compare("x86-avx2", files)


def _compare(target: str, files: Mapping[str, bytes]) -> None:
    folder = GOLDEN / target
    if os.environ.get("UPDATE_GOLDEN"):
        folder.mkdir(parents=True, exist_ok=True)
    changes = []
    for name in sorted(name for name in files if not name.endswith(NOT_TEXT)):
        new = without_version(files[name].decode())
        path = folder / name
        if os.environ.get("UPDATE_GOLDEN"):
            path.write_text(new)
        old = path.read_text()
        changes += difflib.unified_diff(
            old.splitlines(), new.splitlines(), f"{target}/{name}", "now", lineterm=""
        )
    assert not changes, "\n".join([*changes[:200], "renew with UPDATE_GOLDEN=1 if it is right"])


def test_header_of_a_detector_is_as_reviewed() -> None:
    """Several inputs and outputs of several types, under long names."""
    model = several_model("detector/")
    files = mdlc.compile(model, "arm-neon", name="Detector", threads=2).files()
    new = without_version(files["Detector.h"].decode())
    path = GOLDEN / "arm-neon" / "Detector.h"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(new)
    changes = list(
        difflib.unified_diff(path.read_text().splitlines(), new.splitlines(), lineterm="")
    )
    assert not changes, "\n".join([*changes, "renew with UPDATE_GOLDEN=1 if it is right"])
