"""The fuzzers of tests/fuzz for some seconds, on their corpora and a little beyond."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.emitted_code import require
from tests.fuzz.importer import compiled, seeds
from tests.fuzz.run import build, corpus


def require_fuzzer(folder: Path) -> None:
    """Skips the test where clang has no runtime of fuzzers."""
    source = folder / "nothing.cpp"
    source.write_text(
        'extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) {return 0;}'
    )
    flags = ["-fsanitize=fuzzer", *shlex.split(os.environ.get("MDLC_FUZZ_FLAGS", ""))]
    command = [require("clang++"), *flags, str(source), "-o", str(folder / "nothing")]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs clang's runtime of fuzzers (libclang-rt-dev)")


@pytest.mark.parametrize(("name", "runs"), [("loader", 600), ("interface", 8000)])
def test_fuzzer(name: str, runs: int, tmp_path: Path) -> None:
    require_fuzzer(tmp_path)
    program = build(name, tmp_path)
    files = sorted(path for path in corpus(name).iterdir() if path.is_file())
    assert len(files) > 10
    for arguments in (
        [*map(str, files)],
        [f"-runs={runs}", "-seed=1", "-max_total_time=20", str(tmp_path / "found"),
         str(corpus(name))],
    ):  # fmt: skip
        (tmp_path / "found").mkdir(exist_ok=True)
        done = subprocess.run(
            [str(program), *arguments], capture_output=True, text=True, cwd=tmp_path, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]


def test_models_that_a_fuzzer_made() -> None:
    assert all(compiled(seed) for seed in seeds())
    for path in sorted(corpus("importer").iterdir()):
        compiled(path.read_bytes())
