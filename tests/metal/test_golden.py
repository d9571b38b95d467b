"""The emitted Metal text of small networks, as a reviewer reads it.

`UPDATE_GOLDEN=1 pytest tests/metal/test_golden.py` renews the files in tests/golden/metal/.
"""

from __future__ import annotations

import difflib
import os

import onnx
import pytest

import mdlc
from tests.emitted_code import block_model
from tests.metal.programs import add_model, forms_model, softmax_model
from tests.test_golden import GOLDEN, without_version

FOLDER = GOLDEN / "metal"
BLOCK = ("Block.metal", "Block.h", "Block.cpp", "Block_c.h", "Block_c.cpp", "Block.swift",
         "Package.swift", "module.modulemap", "CMakeLists.txt")  # fmt: skip


@pytest.mark.parametrize(
    ("name", "model", "files"),
    [
        ("Sum", add_model(), ("Sum.metal",)),
        ("Classes", softmax_model(), ("Classes.metal",)),
        ("Forms", forms_model(), ("Forms.metal",)),
        ("Block", block_model(), BLOCK),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_text_is_as_reviewed(name: str, model: onnx.ModelProto, files: tuple[str, ...]) -> None:
    emitted = mdlc.compile(model, "metal", name=name).files()
    changes = []
    for file in files:
        new = without_version(emitted[file].decode())
        path = FOLDER / file
        if os.environ.get("UPDATE_GOLDEN"):
            FOLDER.mkdir(parents=True, exist_ok=True)
            path.write_text(new)
        changes += difflib.unified_diff(
            path.read_text().splitlines(), new.splitlines(), file, "now", lineterm=""
        )
    assert not changes, "\n".join([*changes[:200], "renew with UPDATE_GOLDEN=1 if it is right"])
