"""The class for C: from C, and as a shared object that a program of another language loads."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mdlc
from mdlc.cli import main
from mdlc.codegen.cpp.emit import answer_code
from mdlc.codegen.frame.frame import Frame
from tests.answers.test_class import ANSWERS, maps_model
from tests.emitted_code import NO_RUNTIME, WARNINGS, block_model, require, two_ways_model

C99 = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror")

# Prints the places of a frame's boxes, and what is wrong where something is.
PROGRAM = """
#include <stdio.h>
#include <string.h>
#include "Net_c.h"

static uint8_t pixels[20 * 30 * 3];
static NetBoxes boxes;

int main(int argc, char** argv) {
  int error, i;
  NetFrame frame;
  NetHandle* net = Net_create();
  if (argc != 2 || net == NULL) return 2;
  memset(&frame, 0, sizeof frame);
  frame.format = NetRGB;
  frame.width = 30;
  frame.height = 20;
  frame.planes[0] = pixels;
  frame.strides[0] = 90;
  frame.steps[0] = 3;
  for (i = 0; i < 20 * 30 * 3; ++i) pixels[i] = (uint8_t)(i * 7 + i / 90);
  if (Net_answer_frame(net, &frame, &boxes) != NetNotInitialised) return 3;
  if (Net_init(net, "nowhere", NULL) != NetFileMissing) return 4;
  error = Net_init(net, argv[1], NULL);
  if (error != NetOk) puts(Net_error_text(error));
  if (Net_answer_frame(net, NULL, &boxes) != NetFrameFormat) return 5;
  if (Net_answer_frame(net, &frame, NULL) != NetBadOutput) return 6;
  error = Net_answer_frame(net, &frame, &boxes);
  if (error != NetOk) puts(Net_error_text(error));
  for (i = 0; i < boxes.count; ++i) printf("%.9g %.9g\\n", boxes.box[i].left, boxes.box[i].score);
  Net_destroy(net);
  Net_destroy(NULL);
  return 0;
}
"""


def _objects(folder: Path, *flags: str) -> list[str]:
    """The class's sources, built as C++."""
    command = [require("g++"), "-std=c++17", "-O1", *WARNINGS, *NO_RUNTIME, *flags, "-c"]
    subprocess.run([*command, *folder.glob("Net*.cpp")], cwd=folder, check=True)
    return sorted(str(path) for path in folder.glob("Net*.o"))


def _library(folder: Path) -> ctypes.CDLL:
    objects = _objects(folder, "-fPIC", "-fvisibility=hidden")
    command = [require("g++"), "-shared", *objects, "-o", "libnet.so", "-Wl,--no-undefined"]
    subprocess.run(command, cwd=folder, check=True)
    found = ctypes.CDLL(str(folder / "libnet.so"))
    found.Net_create.restype = ctypes.c_void_p
    found.Net_error_text.restype = ctypes.c_char_p
    return found


class _Mat(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int) for name in ("height", "width", "channels", "type")),
        ("stride", ctypes.c_size_t),
    )


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("axes", ctypes.POINTER(ctypes.c_int)),
        *((name, ctypes.c_int) for name in ("rank", "type", "height", "width", "channels")),
        ("bytes", ctypes.c_size_t),
    )


def _mat(array: np.ndarray[Any, Any], port: Any) -> _Mat:
    return _Mat(array.ctypes.data, *port.dims, 0, 0)


@pytest.mark.parametrize("kind", ANSWERS)
def test_the_header_is_c_and_answers_are_the_classes(kind: str, tmp_path: Path) -> None:
    compiled = mdlc.compile(
        maps_model(), "generic", name="Net", answer=ANSWERS[kind], frame=True, c_api=True
    )
    compiled.write(tmp_path)
    code = answer_code(compiled.plan)
    assert code is not None
    size = 0 if code.type == "Mask" else code.dtype.itemsize
    check = f"typedef char size[sizeof(Net{code.type}) == {size} ? 1 : -1];" if size else ""
    (tmp_path / "use.c").write_text(f'#include "Net_c.h"\n{check}\nint use(void) {{ return 0; }}\n')
    subprocess.run([require("gcc"), *C99, "-fsyntax-only", "use.c"], cwd=tmp_path, check=True)
    both = '#include "Net.h"\n#include "Net_c.h"\n#include "Net_c.h"\n'
    (tmp_path / "both.cpp").write_text(both)
    words = [require("g++"), "-std=c++17", *WARNINGS, *NO_RUNTIME, "-fsyntax-only"]
    subprocess.run([*words, "Net_c.cpp", "both.cpp"], cwd=tmp_path, check=True)


def test_a_program_in_c(tmp_path: Path) -> None:
    how = {"answer": ANSWERS["boxes"], "frame": True, "mean": 128, "std": 4, "c_api": True}
    compiled = mdlc.compile(maps_model(), "generic", name="Net", **how)
    compiled.write(tmp_path)
    (tmp_path / "main.c").write_text(PROGRAM)
    subprocess.run([require("gcc"), *C99, "-c", "main.c"], cwd=tmp_path, check=True)
    command = [require("g++"), "main.o", *_objects(tmp_path), "-o", "program"]
    subprocess.run(command, cwd=tmp_path, check=True)
    words = [str(tmp_path / "program"), str(tmp_path / "Net.weights")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found = np.array([line.split() for line in done.stdout.splitlines()], np.float32)

    at = np.arange(20 * 30 * 3)
    pixels = (at * 7 + at // 90).astype(np.uint8)
    answer = compiled.build().answer_frame(Frame("RGB", 30, 20, (pixels,), (90,)))
    boxes = answer["box"][: answer["count"]]
    assert len(boxes) > 3
    np.testing.assert_array_equal(found[:, 0], boxes["left"])
    np.testing.assert_array_equal(found[:, 1], boxes["score"])


def test_a_shared_object_describes_itself(tmp_path: Path) -> None:
    compiled = mdlc.compile(two_ways_model(), "generic", name="Net", c_api=True)
    compiled.write(tmp_path)
    library = _library(tmp_path)
    for side, ports in (("input", compiled.plan.inputs), ("output", compiled.plan.outputs)):
        function = getattr(library, f"Net_{side}")
        function.restype = ctypes.POINTER(_Tensor)
        for number, port in enumerate(ports):
            said = function(number).contents
            assert said.name.decode() == port.name
            assert tuple(said.shape[: said.rank]) == port.type.shape
            axes = said.axes[: said.rank]
            assert tuple(port.type.shape[axis] for axis in axes) == port.type.physical_shape
            assert (said.height, said.width, said.channels) == port.dims
            assert said.bytes == port.type.nbytes
        assert not function(len(ports))
        assert not function(-1)

    rng = np.random.default_rng(0)
    inputs = {p.name: rng.standard_normal(p.type.shape, np.float32) for p in compiled.plan.inputs}
    expected = compiled.build()(inputs)
    given = [port.type.to_physical(inputs[port.name]) for port in compiled.plan.inputs]
    results = [np.empty(p.type.physical_shape, np.float32) for p in compiled.plan.outputs]
    ports = (*compiled.plan.inputs, *compiled.plan.outputs)
    mats = [_mat(a, p) for a, p in zip((*given, *results), ports, strict=True)]
    handle = ctypes.c_void_p(library.Net_create())
    pointers = [ctypes.byref(mat) for mat in mats]
    assert library.Net_infer(handle, *pointers) == -9
    file = (tmp_path / "Net.weights").read_bytes()
    assert library.Net_init_memory(handle, file, ctypes.c_size_t(len(file)), None) == 0
    assert library.Net_infer(handle, *pointers) == 0
    for port, result in zip(compiled.plan.outputs, results, strict=True):
        np.testing.assert_array_equal(port.type.to_logical(result), expected[port.name])
    # Nothing that is missing or out of range crashes.
    assert library.Net_infer(handle, None, *pointers[1:]) == -10
    assert library.Net_infer(handle, *pointers[:-1], None) == -11
    assert library.Net_infer(None, *pointers) == -9
    mats[0].type = 1 << 20
    assert library.Net_infer(handle, *pointers) == -10
    assert b"no data" in library.Net_error_text(-10)
    library.Net_destroy(handle)


def test_threads_target_and_checksum_from_c(tmp_path: Path) -> None:
    compiled = mdlc.compile(
        block_model(), "arm-neon,generic", name="Net", threads=2, c_api=True, embed_weights=True
    )
    files = compiled.files()
    assert "Net_c.cpp" in files["CMakeLists.txt"].decode()
    compiled.write(tmp_path)
    library = _library(tmp_path)
    library.Net_target.restype = ctypes.c_char_p

    class Options(ctypes.Structure):
        _fields_ = (("sum", ctypes.c_int), ("threads", ctypes.c_int), ("target", ctypes.c_char_p))

    handle = ctypes.c_void_p(library.Net_create())
    assert library.Net_target(handle) == b""
    assert library.Net_init(handle, None, ctypes.byref(Options(0, 9, None))) == -13
    assert library.Net_init(handle, None, ctypes.byref(Options(0, 0, b"nothing"))) == -21
    assert library.Net_init(handle, None, ctypes.byref(Options(2, 1, b"generic"))) == 0
    assert library.Net_target(handle) == b"generic"
    library.Net_destroy(handle)


def test_metal_has_it_in_any_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import onnx

    onnx.save(block_model(), tmp_path / "block.onnx")
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "block.onnx"), "-t", "metal", "--c-api", "-o", str(tmp_path)])
    assert stop.value.code == 2
    assert "has its class for C in any case; leave it out" in capsys.readouterr().err
