"""Where emitted classes build: every compiler here, standard, level and system, as a table.

Usage: python -m benchmarks.builds [--quick]

A class in float for all instruction sets and one in 8 bits for those of phones and of the web are
compiled as one translation unit, warnings as errors, without exceptions and RTTI. What this
machine lacks is named in the table.
"""

from __future__ import annotations

import importlib.util
import itertools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import mdlc
from tests.emitted_code import NO_RUNTIME, WARNINGS, block_model, compile_to, image, sources

COMPILERS: dict[str, tuple[str, ...]] = {
    "g++": ("g++",),
    "clang++": ("clang++",),
    "aarch64-linux-gnu-g++": ("aarch64-linux-gnu-g++",),
    "clang++ aarch64": ("clang++", "--target=aarch64-linux-gnu"),
    "arm-linux-gnueabihf-g++": ("arm-linux-gnueabihf-g++", "-mfpu=neon"),
    "arm-linux-gnueabihf-g++ vfpv4": ("arm-linux-gnueabihf-g++", "-mfpu=neon-vfpv4"),
    "s390x-linux-gnu-g++": ("s390x-linux-gnu-g++",),
    "clang++ wasm32-wasi": ("clang++", "--target=wasm32-wasi"),
    "em++": ("em++",),
}
SYSTEMS = ("x86_64-windows-gnu", "x86_64-linux-musl", "aarch64-macos", "aarch64-linux-musl",
           "wasm32-wasi", "riscv64-linux-musl", "arm-linux-gnueabihf")  # fmt: skip
STANDARDS = ("c++17", "c++20", "c++2b")
LEVELS = ("-O0", "-O1", "-O2", "-O3", "-Os")


def emitted(folder: Path) -> Path:
    """A translation unit with both classes."""
    compile_to(folder, block_model(), "all", c_api=True)
    frames = [{"image": image(seed)} for seed in range(2)]
    quantize = mdlc.Quantize(frames, rounding="nearest", placement="everywhere")
    compile_to(folder, block_model(), "android,web", name="Bytes", quantize=quantize)
    unit = folder / "unit.cpp"
    files = [*sources(folder), *sources(folder, "Bytes")]
    unit.write_text("".join(f'#include "{source.name}"\n' for source in files))
    return unit


def outcome(command: tuple[str, ...], unit: Path, *flags: str) -> str:
    """ "ok", or the first complaint."""
    everything = [*command, *flags, *WARNINGS, *NO_RUNTIME, "-c", str(unit), "-o", "unit.o"]
    done = subprocess.run(everything, cwd=unit.parent, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return "ok"
    complaints = [line for line in done.stderr.splitlines() if "error" in line]
    return (complaints or done.stderr.splitlines() or ["failed"])[0]


def main() -> None:
    quick = "--quick" in sys.argv[1:]
    commands = dict(COMPILERS)
    if importlib.util.find_spec("ziglang"):
        zig = (sys.executable, "-m", "ziglang", "c++", "-target")
        commands |= {f"zig c++ {system}": (*zig, system) for system in SYSTEMS}
    pairs = list(itertools.product(STANDARDS, LEVELS))
    pairs = pairs[:: len(LEVELS) + 1] if quick else pairs
    failed = 0
    print("| compiler | " + " | ".join(f"{s[3:]} {level}" for s, level in pairs) + " |")
    print("|---|" + "---|" * len(pairs))
    with tempfile.TemporaryDirectory() as scratch:
        unit = emitted(Path(scratch))
        for name, command in commands.items():
            if shutil.which(command[0]) is None:
                print(f"| {name} | not on this machine |")
                continue
            found = [outcome(command, unit, f"-std={s}", level) for s, level in pairs]
            failed += sum(each != "ok" for each in found)
            print(f"| {name} | " + " | ".join(found) + " |", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
