"""The guard of continuous integration against skips: tests/conftest.py."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parent / "conftest.py"


@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize(
    ("reason", "allowed", "passes"),
    [
        ("needs nothing", "tests/test_one.py: needs nothing", True),
        ("needs nothing", "tests/test_one.py: needs", False),
        ("needs nothing", "# tests/test_one.py: needs nothing", False),
    ],
)
def test_a_skip_that_is_not_listed_fails_the_run(
    tmp_path: Path, reason: str, allowed: str, passes: bool, workers: str
) -> None:
    tests = tmp_path / "tests"
    tests.mkdir()
    shutil.copy(CONFTEST, tests)
    (tests / "test_one.py").write_text(
        f"import pytest\ndef test_skips(): pytest.skip({reason!r})\ndef test_runs(): pass\n"
    )
    (tmp_path / "allowed.txt").write_text(allowed)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", workers, "--rootdir", tmp_path, tests],
        env={**os.environ, "MDLC_ALLOWED_SKIPS": str(tmp_path / "allowed.txt")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode == 0) == passes, ran.stdout
    assert ("not in the list of allowed skips" in ran.stdout) != passes
