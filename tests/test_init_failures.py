"""Everything that Init asks of the system fails once: an error code, no leak, and it works again.

Under AddressSanitizer with its leak checker, and UndefinedBehaviorSanitizer.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.emitted_code import DRIVERS, block_model, build, compile_to, require, run, sources

WRAPPED = (
    "open", "close", "fstat", "mmap", "read", "lseek", "fopen", "fclose", "fread", "fwrite",
    "pthread_create",
)  # fmt: skip
OK, MISSING, TRUNCATED, NO_MEMORY = 0, -1, -2, -8


ALL = {MISSING, TRUNCATED, NO_MEMORY}


@pytest.mark.parametrize(
    ("kind", "options", "by_file"),
    [
        ("mapped", {}, {MISSING, NO_MEMORY}),
        ("decoded", {"threads": 3, "weights_encoding": "int8+huffman"}, {MISSING, NO_MEMORY}),
        ("read", {}, ALL),
    ],
)
def test_every_call_fails_once(
    kind: str, options: dict[str, object], by_file: set[int], tmp_path: Path
) -> None:
    compile_to(tmp_path, block_model(), "generic", **options)
    if kind == "read":  # as where files cannot be mapped
        source = tmp_path / "Block.cpp"
        text = source.read_text()
        assert "#define BLOCK_MAPS_FILES 1" in text
        source.write_text(text.replace("_MAPS_FILES 1", "_MAPS_FILES 0"))
    wraps = [f"-Wl,--wrap={name}" for name in WRAPPED]
    files = [*sources(tmp_path), DRIVERS / "failures.cpp"]
    flags = ["-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-pthread"]
    program = build(tmp_path, require("g++"), files, [*flags, *wraps])
    told = [line.split(":") for line in run(program, tmp_path / "Block.weights").splitlines()]
    found = {head.split()[0]: set(map(int, codes.split())) for head, codes in told}
    # A stamp that cannot be read or written costs a comparison, and is no error.
    assert found == {"path": ALL, "once": ALL | {OK}, "file": by_file, "memory": {NO_MEMORY}}
    counts = {head.split()[0]: int(head.split()[1]) for head, _ in told}
    assert counts["path"] >= 4
    assert counts["once"] > counts["path"]


def test_threads_with_instances_of_their_own(tmp_path: Path) -> None:
    """Made, destroyed, handed on, of one file and its stamp, under ThreadSanitizer; benchmarks/load
    runs it longer."""
    compile_to(tmp_path, block_model(), "generic")
    files = [*sources(tmp_path), DRIVERS / "load.cpp"]
    program = build(tmp_path, require("g++"), files, ["-O1", "-fsanitize=thread", "-pthread"])
    told = run(program, tmp_path / "Block.weights", 8, 0, 12)
    inferences, instances, _, _ = map(int, told.split())
    assert inferences == 1 + 2 * 8 * (12 + 3)
    assert instances == 1 + 2 * 8 * (1 + 3)
