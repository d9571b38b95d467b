"""A program of an answer's decoder alone: tensors in, the struct's bytes out."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mdlc.codegen.answer.code import AnswerCode, Network
from mdlc.codegen.code import C_TYPES
from mdlc.codegen.kernel import View
from mdlc.codegen.plan.plan import Port
from mdlc.codegen.templates import render
from mdlc.compiler.types import DType, Layout, TensorType

_FLAGS = [
    "-std=c++17",
    "-O1",
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wshadow",
    "-Werror",
    "-fno-exceptions",
    "-fno-rtti",
]
_MAIN = """
#include <cstdio>
#include <vector>
{includes}
class Net {{
 public:
{transform}
{struct}
}};
namespace {{
{source}
}}
template <class T>
static std::vector<T> Read(std::FILE* file, std::size_t count) {{
  std::vector<T> data(count);
  if (std::fread(data.data(), sizeof(T), count, file) != count) std::perror("read");
  return data;
}}
int main(int, char** argv) {{
  std::FILE* in = std::fopen(argv[1], "rb");
{reads}
  Net::Transform transform;
  if (std::fread(&transform, sizeof(transform), 1, in) != 1) return 2;
  static Net::{type} answer;
  std::vector<unsigned char> memory({scratch});
{prepare}
  for (int i = 0; i < REPEATS; ++i) Decode({arguments}{memory}transform, {size}answer);
  std::FILE* out = std::fopen(argv[2], "wb");
  {write}
  return std::fclose(out);
}}
"""

_PREPARE = """
  std::vector<std::uint8_t> labels({height} * {width});
  std::vector<float> confidence({height} * {width});
  answer.labels = labels.data();
  answer.height = {height};
  answer.width = {width};
{confident}"""
_WRITE = """std::fwrite(labels.data(), 1, labels.size(), out);
  std::fwrite(confidence.data(), 4, confidence.size(), out);"""


def network(shapes: Mapping[str, tuple[int, ...]], height: int, width: int, **how: Any) -> Network:
    """A network of these outputs: plain floats, or by name NHWC (True) or of another DType."""
    ports = {}
    for number, (name, shape) in enumerate(shapes.items()):
        layout = Layout.NHWC if how.get(name) is True else Layout.PLAIN
        dtype = how[name] if isinstance(how.get(name), DType) else DType.F32
        view = View.of(TensorType(shape, dtype, layout), number)
        ports[name] = Port(name, f"tensor_{number}", view)
    return Network("Net", ports, height, width)


@cache
def _built(text: str, folder: Path, flags: tuple[str, ...]) -> Path:
    source, program = folder / "decode.cpp", folder / "decode"
    source.write_text(text)
    subprocess.run(
        ["g++", *_FLAGS, *flags, str(source), "-o", str(program)],
        check=True,
    )
    return program


def decode(
    code: AnswerCode,
    arrays: Mapping[str, np.ndarray],
    folder: Path,
    transform: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    mask: tuple[int, int] | None = None,
    picture: tuple[int, int] | None = None,
    flags: tuple[str, ...] = ("-fsanitize=address,undefined", "-DREPEATS=1"),
) -> Any:
    """What the decoder makes of the outputs' arrays, by ONNX name.

    Args:
        mask: height and width, for a mask: its labels and, for scores, its confidence.
        picture: for a mask, height and width of what it covers.
    """
    text = _MAIN.format(
        prepare=""
        if mask is None
        else _PREPARE.format(
            height=mask[0],
            width=mask[1],
            confident="  answer.confidence = confidence.data();\n" if code.confident else "",
        ),
        size="" if picture is None else f"{picture[1]}, {picture[0]}, ",
        write="std::fwrite(&answer, sizeof(answer), 1, out);" if mask is None else _WRITE,
        includes="\n".join(f"#include <{name}>" for name in sorted(code.includes)),
        transform=render("cpp/answer/transform_struct.j2"),
        struct=code.struct,
        source=code.source,
        type=code.type,
        scratch=code.scratch,
        memory="memory.data(), " if code.scratch else "",
        arguments="".join(f"{port.identifier}.data(), " for port in code.outputs),
        reads="\n".join(
            f"  const auto {port.identifier} = "
            f"Read<{C_TYPES[port.type.dtype]}>(in, {port.type.size});"
            for port in code.outputs
        ),
    )
    program = _built(text, folder, flags)
    data = b"".join(
        port.type.to_physical(arrays[port.name].astype(port.type.dtype.numpy)).tobytes()
        for port in code.outputs
    )
    (folder / "in.bin").write_bytes(data + np.array(transform, np.float32).tobytes())
    subprocess.run([str(program), str(folder / "in.bin"), str(folder / "out.bin")], check=True)
    data = (folder / "out.bin").read_bytes()
    if mask is None:
        return np.frombuffer(data, code.dtype)[0]
    size = mask[0] * mask[1]
    return (
        np.frombuffer(data[:size], np.uint8).reshape(mask),
        np.frombuffer(data[size:], np.float32).reshape(mask),
    )
