"""The emitted class at work: sanitizers, threads, memory, arguments."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import mdlc
from mdlc.codegen.isa.registry import find_isa
from mdlc.codegen.plan.lowering import lower
from mdlc.codegen.run.executable import Executable
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.onnx_import import import_model
from mdlc.pipeline import optimise
from tests.emitted_code import (
    DRIVERS,
    NATIVE,
    NO_RUNTIME,
    WARNINGS,
    block_model,
    build,
    compile_to,
    image,
    require,
    require_linux,
    run,
    sources,
    two_ways_model,
)

SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")


def test_wrong_target_is_refused_by_name(tmp_path: Path) -> None:
    other = "arm-neon" if platform.machine() in ("x86_64", "AMD64") else "x86-avx2"
    compile_to(tmp_path, block_model(), other)
    kernels = f"Block_{other.replace('-', '_')}.cpp"
    done = subprocess.run(
        [require("g++"), "-std=c++17", "-fsyntax-only", str(tmp_path / kernels)],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert f"{kernels} is for {other}" in done.stderr


@pytest.mark.parametrize("target", NATIVE)
def test_sanitized_answers_are_those_of_onnx_runtime(target: str, tmp_path: Path) -> None:
    model = block_model()
    graph = optimise(import_model(model))
    plan = lower(graph, find_isa(target), "Block")
    executable = Executable(plan, flags=SANITIZERS, directory=tmp_path)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    frames = [{"image": image(seed)} for seed in range(3)]
    for frame, result in zip(frames, executable.run_many(frames), strict=True):
        (expected,) = session.run(None, frame)
        np.testing.assert_allclose(result["logits"], expected, rtol=1e-4, atol=1e-5)


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    model = two_ways_model()
    compiled = mdlc.compile(model, "generic")
    executable = Executable(compiled.plan, flags=SANITIZERS, directory=tmp_path)
    a = np.arange(40, dtype=np.float32).reshape(1, 2, 4, 5)
    b = np.array([100, -1], np.float32).reshape(1, 2, 1, 1)
    results = executable({"a.b/1": a, "class": b})
    np.testing.assert_allclose(results["sum:0"], a + b)
    np.testing.assert_allclose(results["1st"], (a + b).mean((2, 3), keepdims=True), rtol=1e-6)


def test_trace_has_every_layer_and_ends_in_the_output() -> None:
    compiled = mdlc.compile(block_model(), "generic")
    executable = compiled.build()
    traced = executable.trace({"image": image()})
    assert list(traced) == [step.name for step in compiled.plan.steps]
    last = traced[compiled.plan.steps[-1].name]
    np.testing.assert_array_equal(last, executable({"image": image()})["logits"])
    timing = executable.time(5)
    assert list(timing.layers) == list(traced)
    assert timing.total > 0


def test_arguments_that_do_not_fit(tmp_path: Path) -> None:
    compile_to(tmp_path, block_model(), "generic")
    files = [*sources(tmp_path), DRIVERS / "arguments.cpp"]
    program = build(tmp_path, require("g++"), files, ("-O1", *SANITIZERS))
    run(program, tmp_path / "Block.weights")


@pytest.mark.parametrize("target", NATIVE)
def test_two_instances_on_two_threads(target: str, tmp_path: Path) -> None:
    compile_to(tmp_path, block_model(), target)
    files = [*sources(tmp_path), DRIVERS / "threads.cpp"]
    flags = ("-O1", "-g", "-fsanitize=thread", "-pthread")
    run(build(tmp_path, require("g++"), files, flags), tmp_path / "Block.weights")


@pytest.mark.parametrize("target", NATIVE)
def test_workers(target: str, tmp_path: Path) -> None:
    compile_to(tmp_path, block_model(), target, threads=3)
    files = [*sources(tmp_path), DRIVERS / "workers.cpp"]
    flags = ("-O2", "-pthread", *NO_RUNTIME, *WARNINGS)
    run(build(tmp_path, require("g++"), files, flags), tmp_path / "Block.weights")


@pytest.mark.parametrize("target", NATIVE)
def test_infer_never_allocates(target: str, tmp_path: Path) -> None:
    require_linux()
    compile_to(tmp_path, block_model(), target)
    files = [*sources(tmp_path), DRIVERS / "allocations.cpp"]
    program = build(tmp_path, require("g++"), files, ("-O2", *NO_RUNTIME))
    in_init, in_infer = map(int, run(program, tmp_path / "Block.weights").split())
    assert in_init >= 1  # the arena: the counter counts
    assert in_infer == 0


def test_embedded_weights_give_the_same_answer(tmp_path: Path) -> None:
    pixels = image().transpose(0, 2, 3, 1).tobytes()
    answers = []
    for embed in (False, True):
        folder = tmp_path / str(embed)
        compile_to(folder, block_model(), "generic", embed_weights=embed)
        files = [*sources(folder), folder / "main.cpp"]
        program = build(folder, require("g++"), files, ("-O2",))
        (folder / "image.raw").write_bytes(pixels)
        weights = () if embed else (folder / "Block.weights",)
        assert (folder / "Block.weights").exists() != embed
        answers.append(run(program, *weights, folder / "image.raw"))
    assert answers[0] == answers[1]
    assert answers[0].startswith("largest of logits: ")


def test_a_crash_is_an_error_with_the_signal(tmp_path: Path) -> None:
    executable = Executable(mdlc.compile(block_model(), "generic").plan, directory=tmp_path)
    source = executable.directory / "crash.cpp"
    source.write_text("#include <csignal>\nint main() { return std::raise(SIGSEGV); }\n")
    executable.toolchain.compile([source], executable.program, ())
    with pytest.raises(MdlcError, match="SIGSEGV"):
        executable({"image": image()})
