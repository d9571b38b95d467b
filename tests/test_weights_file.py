"""The weights file, broken in every way, under AddressSanitizer: an error code each time."""

from __future__ import annotations

import random
import struct
import subprocess
import zlib
from pathlib import Path

import pytest

from mdlc import compile as compile_model
from mdlc.codegen.plan.plan import Plan
from mdlc.codegen.plan.weights_file import ENCODED_VERSION, HEADER_BYTES, MAGIC, VERSION
from tests.emitted_code import (
    DRIVERS,
    WARNINGS,
    block_model,
    build,
    compile_to,
    require,
    run,
    sources,
)

OK = 0
MISSING, TRUNCATED, FOREIGN, OTHER_VERSION, OTHER_TARGET, OTHER_MODEL, CORRUPT = range(-1, -8, -1)
NOT_INITIALISED = -9

SANITIZED = (
    "-O1",
    "-g",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
)


class Probe:
    """A program that calls Init on files, and the bytes of the file that is right for it."""

    def __init__(self, folder: Path) -> None:
        compile_to(folder, block_model(), "generic")
        self.folder = folder
        self.good = (folder / "Block.weights").read_bytes()
        files = [*sources(folder), DRIVERS / "init_files.cpp"]
        self.program = build(folder, require("g++"), files, SANITIZED)

    def codes(self, contents: list[bytes]) -> list[int]:
        """Init's results for files of these contents."""
        paths = []
        for number, content in enumerate(contents):
            path = self.folder / f"{number}.bin"
            path.write_bytes(content)
            paths.append(str(path))
        return self.of_paths(paths)

    def of_paths(self, paths: list[str]) -> list[int]:
        """Init's results for paths.

        Asserts that a fresh instance and one that was initialised before agree, and that infer
        works after a good file and refuses to after any other.
        """
        done = subprocess.run(
            [str(self.program)],
            input="".join(path + "\n" for path in paths),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        lines = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
        assert len(lines) == len(paths)
        for fresh, kept, infer in lines:
            assert fresh == kept
            assert infer == (OK if fresh == OK else NOT_INITIALISED)
        return [fresh for fresh, _, _ in lines]


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Probe:
    return Probe(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def plan() -> Plan:
    return compile_model(block_model(), "generic", name="Block").plan


def test_header_is_as_documented(probe: Probe, plan: Plan) -> None:
    magic, version, size, target, digest, payload, crc, header_crc = struct.unpack(
        "<8sII16s16sQII", probe.good[:HEADER_BYTES]
    )
    assert (magic, version, size) == (MAGIC, VERSION, HEADER_BYTES)
    assert target.rstrip(b"\0") == b"generic"
    assert digest == plan.digest()[:16]
    assert payload == plan.weight_bytes == len(probe.good) - HEADER_BYTES
    assert crc == zlib.crc32(probe.good[HEADER_BYTES:])
    assert header_crc == zlib.crc32(probe.good[:60])


def test_arrays_lie_where_the_plan_says(probe: Probe, plan: Plan) -> None:
    blobs = plan.blobs()
    arrays = [array for step in plan.steps for array in step.weights.values()]
    end = 0
    for blob, array in zip(blobs, arrays, strict=True):
        assert blob.offset % 64 == 0
        assert blob.offset >= end
        start = HEADER_BYTES + blob.offset
        assert probe.good[start : start + blob.nbytes] == array.tobytes()
        end = blob.offset + blob.nbytes
    assert len(probe.good) == HEADER_BYTES + -(-end // 64) * 64


def test_the_right_file(probe: Probe) -> None:
    assert probe.codes([probe.good, probe.good]) == [OK, OK]


def test_truncated_at_every_boundary(probe: Probe, plan: Plan) -> None:
    size = len(probe.good)
    cuts = set(range(HEADER_BYTES + 1))
    for blob in plan.blobs():
        for edge in (blob.offset, blob.offset + blob.nbytes):
            cuts |= {HEADER_BYTES + edge + delta for delta in (-1, 0, 1)}
    cuts |= {size - 1, size // 2, *range(0, size, 4096)}
    kept = sorted(cut for cut in cuts if 0 <= cut < size)
    assert probe.codes([probe.good[:cut] for cut in kept]) == [TRUNCATED] * len(kept)


def test_trailing_bytes(probe: Probe) -> None:
    longer = [probe.good + bytes(n) for n in (1, 63, 64, 4096)]
    assert probe.codes([*longer, probe.good * 2]) == [TRUNCATED] * 5


def test_a_thousand_flipped_bits(probe: Probe) -> None:
    bits = random.Random(0).sample(range(HEADER_BYTES * 8, len(probe.good) * 8), 1000)
    every_header_bit = list(range(HEADER_BYTES * 8))
    broken = []
    for bit in (*bits, *every_header_bit):
        data = bytearray(probe.good)
        data[bit // 8] ^= 1 << bit % 8
        broken.append(bytes(data))
    codes = probe.codes(broken)
    assert codes[:1000] == [CORRUPT] * 1000
    fields = {0: FOREIGN, 8: OTHER_VERSION, 16: OTHER_TARGET, 32: OTHER_MODEL, 48: CORRUPT}
    for bit, code in zip(every_header_bit, codes[1000:], strict=True):
        assert code == fields[max(start for start in fields if start <= bit // 8)]


def test_random_bytes(probe: Probe) -> None:
    rng = random.Random(1)
    noise = [rng.randbytes(rng.choice([64, 100, len(probe.good)])) for _ in range(50)]
    assert probe.codes(noise) == [FOREIGN] * 50
    behind_the_header = [probe.good[:64] + rng.randbytes(len(probe.good) - 64) for _ in range(20)]
    assert probe.codes(behind_the_header) == [CORRUPT] * 20


def test_of_another_target(probe: Probe, tmp_path: Path) -> None:
    for target in ("arm-neon", "x86-avx2"):
        compile_to(tmp_path / target, block_model(), target)
        assert probe.codes([(tmp_path / target / "Block.weights").read_bytes()]) == [OTHER_TARGET]


def test_of_another_model(probe: Probe, tmp_path: Path) -> None:
    compile_to(tmp_path, block_model(), "generic", name="Other")
    assert probe.codes([(tmp_path / "Other.weights").read_bytes()]) == [OTHER_MODEL]


def test_of_the_same_layers_with_other_values(probe: Probe, tmp_path: Path) -> None:
    compile_to(tmp_path, block_model(seed=1), "generic")
    other = (tmp_path / "Block.weights").read_bytes()
    assert len(other) == len(probe.good)
    assert probe.codes([other]) == [OTHER_MODEL]


@pytest.mark.parametrize("encoding", ["raw", "int8+huffman"])
def test_from_memory_from_a_package_and_checked_once(encoding: str, tmp_path: Path) -> None:
    compile_to(tmp_path, block_model(), "generic", weights_encoding=encoding)
    files = [*sources(tmp_path), DRIVERS / "loading.cpp"]
    # Floats are computed on where they lie at multiples of 4 bytes; what is encoded is decoded.
    flags = (*SANITIZED, *WARNINGS, f"-DIN_PLACE={4 if encoding == 'raw' else 0}")
    program = build(tmp_path, require("g++"), files, flags)
    (tmp_path / "scratch").mkdir()
    run(program, tmp_path / "Block.weights", tmp_path / "scratch")


def test_where_files_cannot_be_mapped(tmp_path: Path) -> None:
    """The same on a system without sys/mman.h, where they are read."""
    compile_to(tmp_path, block_model(), "generic")
    text = (tmp_path / "Block.cpp").read_text()
    mapped = "__has_include(<sys/mman.h>) && !defined(__wasi__)"
    assert mapped in text
    (tmp_path / "Block.cpp").write_text(text.replace(mapped, "0"))
    files = [*sources(tmp_path), DRIVERS / "loading.cpp"]
    program = build(tmp_path, require("g++"), files, (*SANITIZED, *WARNINGS, "-DIN_PLACE=4"))
    (tmp_path / "scratch").mkdir()
    run(program, tmp_path / "Block.weights", tmp_path / "scratch")


def test_no_regular_file(probe: Probe, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert probe.of_paths([str(missing), str(tmp_path), "/dev/null", ""]) == [MISSING] * 4


def test_of_a_newer_or_an_older_format(probe: Probe, tmp_path: Path) -> None:
    """What docs/compatibility.md promises of every version: magic, version and header length."""
    compile_to(tmp_path, block_model(), "generic", weights_encoding="fp16")
    encoded = (tmp_path / "Block.weights").read_bytes()
    assert struct.unpack_from("<II", encoded, 8) == (ENCODED_VERSION, HEADER_BYTES)
    newer = []
    for number, length in ((ENCODED_VERSION + 1, 64), (VERSION, 128), (1 << 31, 4096)):
        header = struct.pack("<8sII", MAGIC, number, length)
        newer += [header + probe.good[16:], header + bytes(max(length - 16, 48))]
    assert probe.codes([encoded, *newer]) == [OTHER_VERSION] * 7
