"""Where the emitted class must build: compilers, standards, optimisation, systems.

A sample: `python -m benchmarks.builds` goes through all of it.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mdlc
from tests.emitted_code import (
    DRIVERS,
    NO_RUNTIME,
    WARNINGS,
    block_model,
    build,
    compile_to,
    image,
    require,
    sources,
)

UNSUPPORTED_CPU = -12
ZIG = ("x86_64-windows-gnu", "aarch64-macos", "aarch64-linux-musl", "wasm32-wasi",
       "riscv64-linux-musl", "arm-linux-gnueabihf")  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class in float for all instruction sets, and one in bytes for those of a phone."""
    made = tmp_path_factory.mktemp("class")
    compile_to(made, block_model(), "all", c_api=True)
    frames = [{"image": image(seed)} for seed in range(2)]
    quantize = mdlc.Quantize(frames, rounding="nearest", placement="everywhere")
    compile_to(made, block_model(), "android,web", name="Bytes", quantize=quantize)
    files = [*sources(made), *sources(made, "Bytes")]
    (made / "unit.cpp").write_text("".join(f'#include "{source.name}"\n' for source in files))
    return made


def _compiles(folder: Path, *command: str) -> None:
    strict = ["-c", "unit.cpp", "-o", "unit.o", *WARNINGS, *NO_RUNTIME]
    done = subprocess.run([*command, *strict], cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), f"{command}\n{done.stderr[:3000]}"


@pytest.mark.parametrize(
    ("compiler", "standard", "level"),
    [
        ("g++", "c++17", "-O0"), ("g++", "c++20", "-O3"), ("g++", "c++23", "-Os"),
        ("clang++", "c++17", "-O2"), ("clang++", "c++20", "-O1"), ("clang++", "c++2b", "-Os"),
        ("arm-linux-gnueabihf-g++", "c++17", "-O2"), ("aarch64-linux-gnu-g++", "c++20", "-O2"),
    ],
)  # fmt: skip
def test_compilers(compiler: str, standard: str, level: str, folder: Path) -> None:
    more = ["-mfpu=neon"] if compiler.startswith("arm-") else []
    _compiles(folder, require(compiler), f"-std={standard}", level, *more)


@pytest.mark.parametrize("system", ZIG)
def test_systems(system: str, folder: Path) -> None:
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("needs the ziglang wheel")
    command = (sys.executable, "-m", "ziglang", "c++", "-target", system, "-std=c++17", "-O1")
    _compiles(folder, *command)


def test_shared_libraries_have_pages_of_16_kib(tmp_path: Path) -> None:
    """As Android 15 and its stores ask for; on x86-64, linkers take 4 KiB by themselves."""
    compile_to(tmp_path, block_model(), "generic")
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "app.cpp").write_text('#include "Block.h"\nBlock block;\n')
    (tmp_path / "app" / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(app CXX)\nadd_subdirectory(.. block)\n"
        "add_library(app SHARED app.cpp)\ntarget_link_libraries(app PRIVATE Block)\n"
    )
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        pytest.skip("needs CMake and a C++ compiler named c++")
    out = tmp_path / "build"
    for command in (["cmake", "-S", tmp_path / "app", "-B", out],
                    ["cmake", "--build", out, "--target", "app"]):  # fmt: skip
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    command = [require("readelf"), "-lW", str(out / "libapp.so")]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    alignments = {line.split()[-1] for line in text.splitlines() if line.split()[:1] == ["LOAD"]}
    assert alignments == {"0x4000"}


@pytest.mark.parametrize("embed", [False, True], ids=["file", "embedded"])
def test_a_big_endian_processor_refuses_the_weights(embed: bool, tmp_path: Path) -> None:
    compile_to(tmp_path, block_model(), "generic", embed_weights=embed)
    compiler, qemu = require("s390x-linux-gnu-g++"), require("qemu-s390x")
    program = build(tmp_path, compiler, [*sources(tmp_path), DRIVERS / "processor.cpp"], ("-O1",))
    command = [qemu, "-L", "/usr/s390x-linux-gnu", program, tmp_path / "Block.weights"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.stdout.split()[:1] == [str(UNSUPPORTED_CPU)], done.stderr
