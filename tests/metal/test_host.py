"""The host class's own text on the stand-in for metal-cpp: errors, pictures, C functions."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

import mdlc
from mdlc.codegen.metal.program import MetalProgram, half_flags
from mdlc.compiler.errors import MdlcError
from tests.emitted_code import block_model, image, two_ways_model
from tests.metal.programs import (
    METAL,
    SHIM,
    add_model,
    flatten_model,
    mixed_model,
    picture_model,
    relative_error,
    require_clang,
    wide_model,
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> MetalProgram:
    require_clang()
    plan = mdlc.compile(block_model(), "metal", name="Block").plan
    return MetalProgram(plan, directory=tmp_path_factory.mktemp("block"))


def _expected(model: bytes, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, feeds)]


def test_whole_class_agrees_with_onnxruntime(program: MetalProgram) -> None:
    frames = [{"image": image(seed)} for seed in range(3)]
    for frame, actual in zip(frames, program.run_many(frames), strict=True):
        (wanted,) = _expected(block_model().SerializeToString(), frame)
        assert relative_error(actual["logits"], wanted) < 4e-3


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda data: data[:40], "not as long as it should be"),
        (lambda data: data[:-64], "not as long as it should be"),
        (lambda data: data + b"x", "not as long as it should be"),
        (lambda data: b"X" + data[1:], "not a weights file of mdlc"),
        (lambda data: data[:16] + b"generic\0" + data[24:], "made for another target"),
        (lambda data: data[:32] + bytes(16) + data[48:], "made for another model"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "damaged"),
        (lambda data: None, "cannot be opened"),
    ],
)
def test_bad_weights_are_an_error(program: MetalProgram, damage: object, complaint: str) -> None:
    weights = program.directory / "Block.weights"
    good = weights.read_bytes()
    try:
        bad = damage(good)  # type: ignore[operator]
        weights.unlink() if bad is None else weights.write_bytes(bad)
        with pytest.raises(MdlcError, match=complaint):
            program({"image": image()})
    finally:
        weights.write_bytes(good)


def test_several_inputs_and_outputs() -> None:
    require_clang()
    rng = np.random.default_rng(3)
    feeds = {
        "a.b/1": rng.standard_normal((1, 2, 4, 5)).astype(np.float32),
        "class": rng.standard_normal((1, 2, 1, 1)).astype(np.float32),
    }
    actual = mdlc.compile(two_ways_model(), "metal").build()(feeds)
    wanted = _expected(two_ways_model().SerializeToString(), feeds)
    for value, expected in zip(actual.values(), wanted, strict=True):
        assert relative_error(value, expected) < 2e-3


def test_a_flattened_image_is_never_made() -> None:
    require_clang()
    compiled = mdlc.compile(flatten_model(), "metal")
    assert [step.kernel.name for step in compiled.plan.steps] == ["convolution", "dense"]
    feeds = {"x": np.random.default_rng(1).standard_normal((1, 2, 6, 6)).astype(np.float32)}
    (wanted,) = _expected(flatten_model().SerializeToString(), feeds)
    assert relative_error(compiled.build()(feeds)["y"], wanted) < 4e-3


def test_a_picture_of_another_size_is_resized_on_the_gpu() -> None:
    require_clang()
    compiled = mdlc.compile(picture_model(), "metal", input_format="rgb8")
    program = compiled.build()
    assert isinstance(program, MetalProgram)
    # Twice as large in both directions: bilinear sampling at pixel centres averages 2x2 pixels.
    bgra = np.random.default_rng(0).integers(0, 256, (16, 24, 4), dtype=np.uint8)
    (actual,) = program.picture(bgra).values()
    rgb = bgra[:, :, 2::-1].astype(np.float64)
    means = rgb.reshape(8, 2, 12, 2, 3).mean((1, 3)).transpose(2, 0, 1)[None]
    assert relative_error(actual, means * 2) < 2e-3


def test_the_c_functions_and_all_warnings(tmp_path: Path) -> None:
    clang = require_clang()
    compiled = mdlc.compile(block_model(), "metal", name="Block")
    program = compiled.build()
    compiled.write(tmp_path)
    (tmp_path / "use.c.cpp").write_text(
        """
        #include "Block_c.h"
        #include "checks.h"
        #include <cstdio>
        int main(int, char** argv) {
          int error = 0;
          if (BlockCreate("missing", nullptr, nullptr, &error) != nullptr) return 1;
          std::printf("%s\\n", BlockErrorText(error));
          BlockHandle* block = BlockCreate(argv[1], nullptr, nullptr, &error);
          if (block == nullptr) return 2;
          static float picture[16 * 16 * 3];
          for (int i = 0; i < 16 * 16 * 3; ++i) picture[i] = static_cast<float>(i % 7) / 7.0F;
          float logits[10];
          if (BlockInfer(block, picture, logits) != 0) return 3;
          for (float value : logits) std::printf("%.6g ", static_cast<double>(value));
          BlockDestroy(block);
          return 0;
        }
        """
    )
    warnings = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
    options = ["-fno-exceptions", "-fno-rtti", "-pthread", *half_flags()]
    command = [*clang, "-std=c++17", *warnings, *options, "-isystem", str(SHIM), f"-I{tmp_path}"]
    command += [str(tmp_path / name) for name in ("Block.cpp", "Block_c.cpp", "use.c.cpp")]
    # The kernels as built for the class's own program: their names and order are the same.
    command += [str(program.directory / "simulated.o"), "-o", str(tmp_path / "use")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [str(tmp_path / "use"), str(tmp_path / "Block.weights")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, values = done.stdout.split("\n")
    assert first == "the weights file cannot be opened"
    pixels = (np.arange(16 * 16 * 3) % 7 / np.float32(7)).astype(np.float32)
    feeds = {"image": pixels.reshape(1, 16, 16, 3).transpose(0, 3, 1, 2).copy()}
    (wanted,) = _expected(block_model().SerializeToString(), feeds)
    assert relative_error(np.array([float(v) for v in values.split()])[None], wanted) < 4e-3


def test_live_ranges_share_the_heap() -> None:
    plan = mdlc.compile(block_model(), "metal").plan
    assert plan.arena_bytes < sum(buffer.nbytes for buffer in plan.buffers)


def test_manifest_has_the_cost_of_every_kernel() -> None:
    compiled = mdlc.compile(block_model(), "metal", name="Block")
    files = compiled.files()
    manifest = json.loads(files["Block.json"])
    cost = manifest["cost"]
    assert [k["layer"] for k in cost["kernels"]] == [s.name for s in compiled.plan.steps]
    assert cost["half_fmas"] + cost["float_fmas"] >= compiled.plan.macs
    assert set(cost["milliseconds"]) == {"A10", "A15", "M1"} == set(cost["sources"])
    stem = cost["kernels"][0]
    # 16x16x4 halves in, 8x8x16 out, 16x3x3x4 weights and 16 biases in float.
    assert stem["read_bytes"] == 2 * (16 * 16 * 4 + 16 * 9 * 4) + 4 * 16
    assert stem["written_bytes"] == 2 * 8 * 8 * 16
    assert stem["float_fmas"] == 8 * 8 * 16 * 27
    assert set(manifest["files"]) == set(files) - {"Block.json"}


def test_all_missing_operators_are_named() -> None:
    with pytest.raises(MdlcError) as refused:
        mdlc.compile(mixed_model(), "metal")
    for part in ("Cast", "Exp", "Log", "target metal"):
        assert part in str(refused.value)


def test_a_tensor_that_no_texture_holds_is_refused() -> None:
    mdlc.compile(wide_model(8192), "metal")
    with pytest.raises(MdlcError, match=r"2049 slices; Metal's limits are .* 2048"):
        mdlc.compile(wide_model(8193), "metal")


def test_options_of_other_targets_are_refused() -> None:
    with pytest.raises(MdlcError, match="weights in a file"):
        mdlc.compile(add_model(), "metal", embed_weights=True)
    with pytest.raises(MdlcError, match="no threads of its own"):
        mdlc.compile(add_model(), "metal", threads=2)


def test_text_depends_on_the_model_alone() -> None:
    assert (
        mdlc.compile(block_model(), "metal").files() == mdlc.compile(block_model(), "metal").files()
    )
    assert METAL.name == "metal"
