"""The emitted class reads every frame as the arithmetic says, and nothing beside it."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mdlc
from mdlc.codegen.frame.frame import FORMATS, Frame, of_pixels
from mdlc.codegen.frame.reference import convert
from mdlc.codegen.frame.spec import MATCHES, RESAMPLES
from mdlc.codegen.run.executable import Executable
from mdlc.inputs.preprocess import INPUT_FORMATS
from tests.frames.samples import passthrough, random_frame
from tests.targets import FLOAT_TARGETS, require

HEIGHT, WIDTH = 24, 37
# Options, one combination after the other, so that every filter and fit has its turn.
WAYS = [
    {"resample": resample, "match": match, "fit": fit, "yuv": yuv}
    for (match, resample), fit, yuv in zip(
        [(match, resample) for match in MATCHES for resample in RESAMPLES],
        ["letterbox", "crop:0.875", "stretch", "letterbox:top-left", "crop", "letterbox"] * 2,
        ["bt601,full", "bt709,limited", "bt2020,full", "bt601,limited"] * 3,
        strict=True,
    )
]


def compiled(target: str, channels: int = 3, **how: object) -> mdlc.CompiledModel:
    model = passthrough(channels, HEIGHT, WIDTH)
    return mdlc.compile(model, target, name="Net", frame=True, **how)


def check(model: mdlc.CompiledModel, executable: Executable, frames: list[Frame]) -> None:
    assert model.how.frame is not None
    order = INPUT_FORMATS[model.how.input_format or ""]
    for frame, ran in zip(frames, executable.run_frames(frames), strict=True):
        expected = convert(frame, model.how.frame, HEIGHT, WIDTH, order)
        np.testing.assert_array_equal(
            ran.input[0], expected, err_msg=str(replace(frame, planes=()))
        )
        np.testing.assert_array_equal(ran.outputs["y"][0], expected.transpose(2, 0, 1))


@pytest.mark.parametrize("number", range(0, len(WAYS), 2))
def test_every_frame_on_every_filter(number: int) -> None:
    """On this machine: planes end at a page that may not be read."""
    model = compiled("host", (3, 1, 4)[number % 3], **WAYS[number])
    rng = np.random.default_rng(number)
    frames = [random_frame(rng) for _ in range(30)]
    frames += [random_frame(rng, 20, name) for name in FORMATS]
    frames += [random_frame(rng, 300) for _ in range(3)]
    check(model, model.build(), frames)


@pytest.mark.parametrize("target", FLOAT_TARGETS)
def test_every_target_has_the_same_bits(target: str) -> None:
    require(target)
    way = WAYS[FLOAT_TARGETS.index(target) * 5 % len(WAYS)]
    model = compiled(target, channel_order="bgr", fill=(1, 2, 3), **way)
    rng = np.random.default_rng(7)
    check(model, model.build(), [random_frame(rng, 40, name) for name in FORMATS])


@pytest.mark.parametrize("way", [WAYS[0], WAYS[5]], ids=["antialiased", "mean"])
def test_no_byte_beside_the_planes_and_the_memory_is_touched(way: dict, tmp_path: Path) -> None:
    model = compiled("generic", **way)
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")
    executable = Executable(model.plan, flags=flags, directory=tmp_path)
    rng = np.random.default_rng(3)
    check(model, executable, [random_frame(rng, 50) for _ in range(25)])


def test_frames_of_the_longest_side_fit_into_the_memory() -> None:
    """Weights and lines of the largest frames, upright and turned, into few and many pixels."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (8192, 2, 3)).astype(np.uint8)
    wide = pixels.transpose(1, 0, 2)
    frames = [of_pixels(each, rotation=r) for each in (pixels, wide) for r in (0, 90)]
    for resample in ("bicubic", "area"):
        model = compiled("host", resample=resample)
        check(model, model.build(), frames)


def test_the_transform_leads_back_to_the_frame() -> None:
    """A frame whose colours are its coordinates says where each pixel came from."""
    y, x = np.mgrid[0:200, 0:240]
    pixels = np.stack([x, y, np.full_like(x, 255)], -1).astype(np.uint8)
    frames = [
        of_pixels(pixels, rotation=rotation, mirror=mirror, crop=crop)
        for rotation in (0, 90, 180, 270)
        for mirror in (False, True)
        for crop in (None, (30, 20, 150, 101))
    ]
    frames.append(of_pixels(pixels, region=(2.0, 1.0, 30.0, -0.5, 3.0, 40.0)))
    for fit in ("letterbox", "crop:0.7"):
        executable = compiled("host", fit=fit, match="opencv", fill=0).build()
        for frame, ran in zip(frames, executable.run_frames(frames), strict=True):
            rows, columns = np.nonzero(ran.input[0, :, :, 2] == 255)
            at = ran.transform @ np.stack([columns + 0.5, rows + 0.5, np.ones(len(rows))])
            # A pixel's value is its place less half a pixel.
            seen = ran.input[0, rows, columns, :2].T + 0.5
            inner = (at[0] > 32) & (at[1] > 22) & (at[0] < 178) & (at[1] < 119)
            assert inner.sum() > 50
            assert np.abs(at - seen)[:, inner].max() < 1.0, replace(frame, planes=())


BAD = """
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include "Net.h"

int main() {
  Net net;
  static unsigned char plane[64 * 64 * 4], out[3 * 24 * 37];
  std::memset(out, 77, sizeof(out));
  Net::Mat result(out, 24, 37, 3, Net::Mat::kUint8);
  using Frame = Net::Frame;
  const Frame good = Frame::NV21(plane, 64, plane, 64, 64, 64);
  std::printf("%d\\n", net.infer(good, result));
  if (net.Init(nullptr) != Net::kOk) return 1;
  const auto told = [&](const Frame& frame) {
    Net::Transform transform;
    const int error = net.infer(frame, result);
    std::printf("%d %d\\n", error, Net::TransformTo(frame, &transform) == error);
  };
  told(Frame());
  told(Frame::NV21(plane, 64, nullptr, 64, 64, 64));
  told(Frame::I420(plane, 64, plane, nullptr, 32, 64, 64));
  told(Frame::NV12(plane, 63, plane, 64, 64, 64));
  told(Frame::NV12(plane, 64, plane, 63, 64, 64));
  told(Frame::P010(plane, 127, plane, 128, 64, 64));
  told(Frame::RGB(plane, 191, 64, 64));
  told(Frame::YUV_420_888(plane, 64, 0, plane, plane, 64, 2, 64, 64));
  told(Frame::YUV_420_888(plane, 64, 1, plane, plane, 62, 2, 64, 64));
  told(Frame::GRAY(plane, 64, 0, 64));
  told(Frame::GRAY(plane, 64, 64, -1));
  told(Frame::GRAY(plane, 9000, 8193, 1));
  Frame frame = good;
  frame.format = static_cast<Frame::Format>(15);
  told(frame);
  const int rotations[] = {45, -90, 360};
  for (const int rotation : rotations) {
    frame = good;
    frame.rotation = rotation;
    told(frame);
  }
  const int most = std::numeric_limits<int>::max();
  const Net::Crop crops[] = {
      {0, 0, 65, 64}, {1, 0, 64, 64}, {-1, 0, 5, 5}, {3, 3, 0, 5}, {most, 0, most, 1}};
  for (const Net::Crop& crop : crops) {
    frame = good;
    frame.crop = crop;
    told(frame);
  }
  frame = good;
  frame.LookAt(std::numeric_limits<float>::quiet_NaN(), 0, 1, 1);
  told(frame);
  frame.LookAt(1e9F, 0, 1, 1);
  told(frame);
  frame.LookAt(5, 5, 1, 1);
  frame.region_columns = 10000;
  told(frame);
  int touched = 0;
  for (const unsigned char byte : out) touched += byte != 77;
  std::printf("%d\\n", touched);
  std::printf("%d\\n", net.infer(good, result));
  std::puts(Net::ErrorText(Net::kFrameCrop));
  return 0;
}
"""


def test_bad_frames_have_a_code_each_and_nothing_is_written(tmp_path: Path) -> None:
    compiled("generic", embed_weights=True).write(tmp_path)
    (tmp_path / "bad.cpp").write_text(BAD)
    flags = ["-std=c++17", "-fsanitize=address,undefined", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(
        ["g++", *flags, "bad.cpp", "Net.cpp", "Net_generic.cpp", "-o", "bad"],
        cwd=tmp_path,
        check=True,
    )
    ran = subprocess.run(["./bad"], cwd=tmp_path, check=True, capture_output=True, text=True)
    first, *told, touched, last, text = ran.stdout.splitlines()
    assert (first, touched, last) == ("-9", "0", "0")
    assert all(line.endswith(" 1") for line in told)
    form, size, data, stride, crop, rotation, region = (str(code) for code in range(-14, -21, -1))
    codes = [size, data, data, *[stride] * 6, size, size, size, form, *[rotation] * 3]
    codes += [*[crop] * 5, *[region] * 3]
    assert [line.split()[0] for line in told] == codes
    assert text == "the crop is empty or leaves the frame"


def test_emitted_text_is_clean(tmp_path: Path) -> None:
    """Under the warnings that emitted code is held to, for every filter."""
    flags = "-std=c++17 -fno-exceptions -fno-rtti -Wall -Wextra -Wconversion -Wshadow -Wpedantic"
    for number in (0, 3, 4, 6, 7, 9, 11):
        folder = tmp_path / str(number)
        compiled("generic", (3, 1, 4)[number % 3], **WAYS[number]).write(folder)
        for compiler in ("g++", "clang++"):
            subprocess.run(
                [compiler, *flags.split(), "-Werror", "-fsyntax-only", "Net.cpp",
                 "Net_generic.cpp"],
                cwd=folder, check=True,
            )  # fmt: skip


def test_memory_is_where_layers_compute_later() -> None:
    """Reading a frame costs memory only where the network has less."""
    digits = Path(__file__).parents[2] / "examples" / "digits_mobilenet.onnx"
    plain = mdlc.compile(digits, "generic", input_format="gray8").plan
    framed = mdlc.compile(digits, "generic", frame=True).plan
    scratch = framed.frame.scratch.type.size  # type: ignore[union-attr]
    inputs = sum(-(-port.type.nbytes // 64) * 64 for port in framed.inputs)
    assert framed.arena_bytes == max(plain.arena_bytes, scratch + inputs)
