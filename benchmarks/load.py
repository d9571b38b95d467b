"""Many threads, an instance each, for long: python -m benchmarks.load --threads 100 --seconds 600.

Under ThreadSanitizer, then without it, where memory in use after a tenth of the time is compared
with that at the end. Instances are made, destroyed and handed from thread to thread.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.emitted_code import DRIVERS, block_model, build, compile_to, sources
from tests.emitted_code import run as run_program

# Kilobytes by which memory may grow: a thread's arena that the C library keeps.
GROWTH = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--target", default="generic")
    given = parser.parse_args()
    for kind, flags in (("ThreadSanitizer", ["-O1", "-fsanitize=thread"]), ("plain", ["-O2"])):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            compile_to(folder, block_model(), given.target)
            files = [*sources(folder), DRIVERS / "load.cpp"]
            program = build(folder, "g++", files, [*flags, "-pthread"])
            told = run_program(
                program, folder / "Block.weights", given.threads, given.seconds / 2, 10,
                timeout=given.seconds * 2 + 300,
            )  # fmt: skip
        inferences, instances, before, after = map(int, told.split())
        print(f"{kind}: {given.threads} threads, {inferences} inferences, {instances} instances, "
              f"{before} KB in use, {after} KB at the end", flush=True)  # fmt: skip
        if kind == "plain" and after > before + GROWTH:
            raise SystemExit("memory grows")


if __name__ == "__main__":
    main()
