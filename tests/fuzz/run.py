"""Builds and runs the fuzzers of emitted code: python -m tests.fuzz.run loader --seconds 600.

Needs clang++ with its runtime of fuzzers (Debian: libclang-rt-14-dev); MDLC_FUZZ_FLAGS are further
flags of its, such as -resource-dir.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import mdlc
from tests.emitted_code import block_model, sources
from tests.frames.samples import passthrough

HERE = Path(__file__).parent
FLAGS = (
    "-std=c++17", "-O1", "-g", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all",
)  # fmt: skip


def corpus(name: str) -> Path:
    """The folder of inputs of a fuzzer."""
    return HERE / "corpus" / name


def build(name: str, folder: Path) -> Path:
    """The program of a fuzzer, loader or interface, built by clang++ in a folder."""
    if name == "loader":
        kind = {"name": "Block", "weights_encoding": "clustered:4+huffman"}
        compiled = mdlc.compile(block_model(), "generic", **kind)
    else:
        compiled = mdlc.compile(
            passthrough(3, 24, 37), "generic", name="Net", frame=True, fit="letterbox", c_api=True
        )
    compiled.write(folder)
    weights = (folder / f"{compiled.name}.weights").read_bytes()
    (folder / "right.inc").write_text(",".join(map(str, weights)))
    files = sources(folder, compiled.name)
    if name == "loader":  # which includes the file with Init, to see what is internal to it
        files = [path for path in files if path.name != "Block.cpp"]
    program = folder / name
    more = shlex.split(os.environ.get("MDLC_FUZZ_FLAGS", ""))
    command = ["clang++", *FLAGS, *more, f"-I{folder}", *map(str, files), str(HERE / f"{name}.cpp")]
    done = subprocess.run([*command, "-o", str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=["loader", "interface"])
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--keep", action="store_true", help="add what is new to the corpus")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        program = build(given.name, Path(scratch))
        found = Path(scratch) / "found"
        found.mkdir()
        kept = corpus(given.name)
        done = subprocess.run(
            [str(program), f"-max_total_time={given.seconds}", "-max_len=300",
             "-print_final_stats=1", "-verbosity=0", str(found), str(kept)],
            check=False,
        )  # fmt: skip
        if given.keep and done.returncode == 0:
            merged = Path(scratch) / "merged"
            merged.mkdir()
            subprocess.run(
                [str(program), "-set_cover_merge=1", str(merged), str(kept), str(found)], check=True
            )
            for path in merged.iterdir():
                shutil.copy(path, kept / path.name[:12])
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
