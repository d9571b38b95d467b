"""The same bytes whoever compiles, where and when; the same wheel from every build."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.emitted_code import block_model
from tests.test_left_out import eight_bits

ROOT = Path(__file__).resolve().parent.parent
# Emits some classes and prints a digest of each file; from a folder of its own.
PROGRAM = """
import hashlib, json, sys
import mdlc
found = {"": mdlc.__file__}
for path, target, options in (
    ("block.onnx", "x86-avx2", {}),
    ("block.onnx", "arm-neon", {"weights_encoding": "clustered:3+huffman", "threads": 2}),
    ("block.onnx", "metal", {}),
    ("bytes.onnx", "x86-avx512-vnni,generic", {}),
):
    for name, data in mdlc.compile(path, target, name="Net", **options).files().items():
        found[f"{path} {target} {name}"] = hashlib.sha256(data).hexdigest()
print(json.dumps(found))
"""


def emitted(folder: Path, home: Path, umask: int, **environment: str) -> dict[str, str]:
    """Digests by file, of mdlc as `home` has it, with a user's settings."""
    folder.mkdir()
    (folder / "block.onnx").write_bytes(block_model().SerializeToString(deterministic=True))
    (folder / "bytes.onnx").write_bytes(eight_bits().SerializeToString(deterministic=True))
    own = {"PYTHONPATH": str(home), "PATH": os.environ["PATH"], "HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=folder, capture_output=True, text=True,
        env={**own, **environment}, umask=umask, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two builds of the wheel from one commit, in folders of their own."""
    folder = tmp_path_factory.mktemp("wheels")
    found = []
    for name, locale in (("one", "C"), ("two", "C.UTF-8")):
        environment = {**os.environ, "SOURCE_DATE_EPOCH": "1750000000", "LC_ALL": locale}
        done = subprocess.run(
            [sys.executable, str(ROOT / ".ci" / "wheel.py"), str(folder / name)],
            env=environment, capture_output=True, text=True, check=False,
            umask=0o077 if name == "one" else 0o022,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (wheel,) = (folder / name).iterdir()
        found.append(wheel)
    return found


def test_wheels_are_the_same_bytes(wheels: list[Path]) -> None:
    one, two = (hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in wheels)
    assert one == two


def test_a_wheel_has_a_bill_of_materials(wheels: list[Path]) -> None:
    with zipfile.ZipFile(wheels[0]) as archive:
        assert archive.testzip() is None
        (name,) = (n for n in archive.namelist() if "/sboms/" in n)
        assert name.split("/")[0].endswith(".dist-info")
        document = json.loads(archive.read(name))
        (record,) = (n for n in archive.namelist() if n.endswith("/RECORD"))
        recorded = [line.split(",")[0] for line in archive.read(record).decode().splitlines()]
        assert sorted(recorded) == sorted(archive.namelist())
        assert not any(n.startswith(("tests/", "benchmarks/")) for n in archive.namelist())
    assert {part["name"] for part in document["components"]} >= {"onnx", "numpy", "jinja2"}


def test_files_do_not_depend_on_who_emits_them(wheels: list[Path], tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheels[0]) as archive:
        archive.extractall(site)
    here = emitted(tmp_path / "a", ROOT, 0o022, PYTHONHASHSEED="1", LC_ALL="C", TZ="UTC")
    there = emitted(
        tmp_path / "b", site, 0o077, PYTHONHASHSEED="2", LC_ALL="C.UTF-8", TZ="Asia/Kathmandu",
        OMP_NUM_THREADS="1", SOURCE_DATE_EPOCH="1",
    )  # fmt: skip
    assert here.pop("").startswith(str(ROOT))
    assert there.pop("").startswith(str(site))
    assert len(here) > 30
    assert here == there
