"""The emitted text: clean for compilers and clang-format, legible, and safe with any name."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import mdlc
from mdlc.codegen.cpp.format import format_cpp
from mdlc.codegen.isa.registry import find_isa, isas
from mdlc.codegen.run.executable import Executable
from mdlc.codegen.run.toolchain import find_toolchain
from mdlc.compiler.errors import MdlcError
from tests.emitted_code import (
    NATIVE,
    NO_RUNTIME,
    WARNINGS,
    block_model,
    cast_model,
    chain_model,
    compile_to,
    require,
    sources,
)
from tests.targets import NEWEST, OTHERS, zig
from tests.targets import require as require_target

SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")


def _commands(target: str) -> list[list[str]]:
    """Compilers for a target's machine."""
    isa = find_isa(target)
    if not isa.toolchain.triple or target in NATIVE:
        return [[require("g++")], [require("clang++")]]
    if target in NEWEST:
        return [zig(target)]
    if target in OTHERS:
        require_target(target)
        return [[*find_toolchain(isa).compiler]]
    cross = (
        require(f"{isa.toolchain.triple}-g++")
        if "aarch64" in isa.toolchain.triple
        else require("g++")
    )
    return [[cross], [require("clang++"), f"--target={isa.toolchain.triple}"]]


@pytest.mark.parametrize("target", list(isas()))
@pytest.mark.parametrize("embed", [False, True], ids=["file", "embedded"])
def test_no_warnings(target: str, embed: bool, tmp_path: Path) -> None:
    compile_to(tmp_path, block_model(), target, embed_weights=embed)
    for command in _commands(target):
        for source in (*sources(tmp_path), "main.cpp"):
            unused = ["-Wunused-template"] if "clang" in command[0] else []
            flags = [*WARNINGS, *unused, *NO_RUNTIME, "-std=c++17", "-O2", "-c"]
            done = subprocess.run(
                [*command, *flags, str(source), "-o", "object.o"],
                cwd=tmp_path,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, f"{command[0]} {source}\n{done.stderr}"
            assert done.stderr == ""


@pytest.mark.parametrize("target", list(isas()))
def test_format_is_stable(target: str, tmp_path: Path) -> None:
    compile_to(tmp_path, block_model(), target)
    for path in (*tmp_path.glob("*.h"), *tmp_path.glob("*.cpp")):
        text = path.read_text()
        assert format_cpp(text) == text
        assert max(map(len, text.splitlines())) <= 100
        assert re.search(r"\n(\};?(  // namespace \w+)?|#endif)\n\Z", text)


def test_header_has_no_intrinsics_nor_macros(tmp_path: Path) -> None:
    for target in isas():
        isa = compile_to(tmp_path / target, block_model(), target)
        header = (tmp_path / target / "Block.h").read_text()
        directives = re.findall(r"^#\s*(\w+.*)$", header, re.MULTILINE)
        assert directives == ["pragma once", "include <cstddef>", "include <cstdint>"]
        assert isa.f32.vector == "float" or isa.f32.vector not in header


def test_header_opens_with_a_legible_table(tmp_path: Path) -> None:
    options = {"input_format": "rgb8", "mean": "123.675,116.28,103.53", "std": "58.4,57.1,57.4"}
    compile_to(tmp_path, block_model(), "x86-avx512", **options)
    table = (tmp_path / "Block.h").read_text().split("//\n")[1].splitlines()
    labels = [line[5:16].strip() for line in table]
    wanted = ["model", "SHA-256", "command", "target", "work", "memory"]
    wanted += ["input", "output"]
    assert [label for label in labels if label] == wanted
    text = " ".join(line[16:] for line in table)
    assert "mean 123.675, 116.28, 103.53 and std 58.4, 57.1, 57.4" in text
    assert "--std=58.4,57.1,57.4" in text


def test_layers_may_have_any_name(tmp_path: Path) -> None:
    taken = ["infer", "Init", "Mat", "Convolution", "Block", "error", "weights", "At", "kOk"]
    taken += ["input", "class", "std", "Fits", "x_mat", "dense", "conv1x1_4x4x3_to_3", "__a", "_B"]
    taken += ["memory_", "Error", "kArenaBytes", "open", "kX", "Map", "trace", "modelpath"]
    taken += ["close", "stat", "fstat", "mmap", "munmap", "read", "memcpy", "abs", "exp", "sqrt"]
    compile_to(tmp_path, chain_model(taken), "generic")
    for compiler in ("g++", "clang++"):
        command = [
            require(compiler),
            *WARNINGS,
            "-std=c++17",
            "-fsyntax-only",
            *map(str, sources(tmp_path)),
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["ok", "bad_input", "arena_bytes", "plan", "kX", "image"])
def test_constants_of_the_arena_are_not_taken_for_others(name: str, tmp_path: Path) -> None:
    model = chain_model(["a", name, "image"] if name != "image" else ["a", "b", name])
    executable = Executable(
        mdlc.compile(model, "generic").plan, flags=SANITIZERS, directory=tmp_path
    )
    x = np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype(np.float32)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (expected,) = session.run(None, {"x": x})
    (result,) = executable({"x": x}).values()
    np.testing.assert_allclose(result, expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["Mat", "Convolution", "Map", "Error", "std", "1st", "a b"])
def test_class_names_that_cannot_be(name: str) -> None:
    with pytest.raises(MdlcError, match="--name"):
        mdlc.compile(block_model(), "generic", name=name)


@pytest.mark.parametrize("dtype", ["float64", "int16", "uint32", "int64", "uint8", "bool"])
def test_outputs_of_every_type(dtype: str, tmp_path: Path) -> None:
    executable = Executable(mdlc.compile(cast_model(dtype), "generic").plan, directory=tmp_path)
    x = np.array([[0.0, 1.5, 100.25]], np.float32)
    (result,) = executable({"x": x}).values()
    assert result.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(result, x.astype(dtype))
