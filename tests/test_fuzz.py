"""The fuzzers of tests/fuzz for some seconds, on their corpora and a little beyond."""

from __future__ import annotations

import os
import resource
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.emitted_code import require
from tests.fuzz.importer import compiled, seeds
from tests.fuzz.run import build, corpus

MOST_MB = 2048  # of a fuzzer's memory, and of one allocation


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
    found = tmp_path / "found"
    found.mkdir()
    # A program's peak of memory, which libFuzzer limits, begins on Linux with its parent's.
    parent = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    limits = [f"-rss_limit_mb={parent + MOST_MB}", f"-malloc_limit_mb={MOST_MB}"]
    for arguments in (
        [*map(str, files)],
        [f"-runs={runs}", "-seed=1", "-max_total_time=20", str(found), str(corpus(name))],
    ):
        done = subprocess.run(
            [str(program), *limits, *arguments], capture_output=True, text=True, cwd=tmp_path,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]


def test_models_that_a_fuzzer_made() -> None:
    assert all(compiled(seed) for seed in seeds())
    for path in sorted(corpus("importer").iterdir()):
        compiled(path.read_bytes())
