"""mdlc_add_model in a real CMake build."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"

PROJECT = """
cmake_minimum_required(VERSION 3.20)
project(app CXX)
execute_process(COMMAND ${MDLC_EXECUTABLE} --cmake-dir
                OUTPUT_VARIABLE dir OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
include(${dir}/mdlc.cmake)
mdlc_add_model(Digits MODEL digits_mobilenet.onnx TARGET generic
               OPTIONS --input-format gray8 --mean 128 --std 64)
mdlc_add_model(embedded MODEL digits_mobilenet.onnx NAME Inside EMBED_WEIGHTS)
mdlc_add_model(stored MODEL digits_mobilenet.onnx NAME Narrow PRECISION fp16 EMBED_WEIGHTS)
add_executable(app app.cpp)
target_link_libraries(app PRIVATE Digits embedded stored)
get_target_property(weights Digits MDLC_WEIGHTS)
target_compile_definitions(app PRIVATE WEIGHTS="${weights}")
"""

# Both classes see a flat grey picture: 128 is 0 after normalisation.
APP = """
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <vector>
#include "Digits.h"
#include "Inside.h"
#include "Narrow.h"

int main() {
  std::vector<std::uint8_t> grey(32 * 32, 128);
  std::vector<float> zero(32 * 32, 0.0F), a(10), b(10), c(10);
  Digits digits;
  Inside inside;
  Narrow narrow;
  if (narrow.Init(nullptr) != Narrow::kOk) return 4;
  if (digits.Init(WEIGHTS) != Digits::kOk || inside.Init(nullptr) != Inside::kOk) return 1;
  Digits::Mat in(grey.data(), 32, 32, 1, Digits::Mat::kUint8), out(a.data(), 1, 1, 10);
  Inside::Mat in2(zero.data(), 32, 32, 1), out2(b.data(), 1, 1, 10);
  if (digits.infer(in, out) != Digits::kOk || inside.infer(in2, out2) != Inside::kOk) return 2;
  Narrow::Mat in3(zero.data(), 32, 32, 1), out3(c.data(), 1, 1, 10);
  if (narrow.infer(in3, out3) != Narrow::kOk) return 5;
  for (int i = 0; i < 10; ++i) {
    if (!(std::fabs(a[i] - b[i]) <= 1e-4F * (1.0F + std::fabs(b[i])))) return 3;
    if (!(std::fabs(c[i] - b[i]) <= 1e-2F * (1.0F + std::fabs(b[i])))) return 6;
  }
  std::printf("same answers\\n");
}
"""


@pytest.mark.parametrize("generator", ["Unix Makefiles", "Ninja"])
def test_models_build_into_a_program(generator: str, tmp_path: Path) -> None:
    cmake = shutil.which("cmake")
    if cmake is None or shutil.which("c++") is None:
        pytest.skip("needs CMake and a C++ compiler named c++")
    tool = {"Unix Makefiles": "make", "Ninja": "ninja"}[generator]
    if shutil.which(tool) is None:
        pytest.skip(f"needs {tool}")
    source, build = tmp_path / "a project", tmp_path / "build"
    source.mkdir()
    (source / "CMakeLists.txt").write_text(PROJECT)
    (source / "app.cpp").write_text(APP)
    model = source / "digits_mobilenet.onnx"
    shutil.copyfile(EXAMPLES / model.name, model)

    def run(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    mdlc = Path(sys.executable).parent / "mdlc"
    run(cmake, "-G", generator, "-S", str(source), "-B", str(build), f"-DMDLC_EXECUTABLE={mdlc}")
    assert "mdlc digits_mobilenet.onnx for generic" in run(cmake, "--build", str(build))
    assert run(str(build / "app")) == "same answers\n"
    said = (build / "stored.mdlc" / "Narrow.h").read_text()
    assert "weights fp16, arithmetic fp32" in said
    # Nothing to do while the model is the same; made anew when it is newer.
    assert "mdlc digits" not in run(cmake, "--build", str(build))
    newer = (build / "Digits.mdlc" / "Digits.cpp").stat().st_mtime + 2
    os.utime(model, (newer, newer))
    assert "mdlc digits" in run(cmake, "--build", str(build))
