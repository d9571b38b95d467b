"""A program of a class of two networks: frames in, the bytes of its items out."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mdlc.chain import CompiledChain
from mdlc.codegen.cpp.emit import answer_code
from mdlc.codegen.frame.frame import FORMATS, Frame, luma_sizes
from tests.emitted_code import NO_RUNTIME, WARNINGS, build

_MAIN = """
#include <cstdio>
#include <cstdlib>
#include <vector>
#include "{name}.h"
int main(int, char** argv) {{
  static {name}::Items items;
  {name} network;
  int error = network.Init("{name}.weights");
  std::FILE* out = std::fopen("items.bin", "wb");
  for (int i = 1; argv[i] != nullptr && error == {name}::kOk; i += 5) {{
    std::vector<unsigned char> planes[3];
    {name}::Frame frame(static_cast<{name}::Frame::Format>(std::atoi(argv[i])), std::atoi(argv[i + 1]), std::atoi(argv[i + 2]), nullptr, 0, 0);
    frame.rotation = std::atoi(argv[i + 3]);
    std::FILE* in = std::fopen(argv[i + 4], "rb");
    if (in == nullptr) return 2;
    for (int plane = 0; plane < 3; ++plane) {{
      int head[3];
      if (std::fread(head, 4, 3, in) != 3) return 3;
      planes[plane].resize(static_cast<std::size_t>(head[0]));
      if (std::fread(planes[plane].data(), 1, planes[plane].size(), in) != planes[plane].size()) return 4;
      frame.planes[plane] = planes[plane].data();
      frame.strides[plane] = static_cast<std::size_t>(head[1]);
      frame.steps[plane] = head[2];
    }}
    frame.mirror = std::fgetc(in) != 0;
    std::fclose(in);
    error = network.infer(frame, items);
    std::fwrite(&items, sizeof(items), 1, out);
  }}
  std::fclose(out);
  if (error != {name}::kOk) std::puts({name}::ErrorText(error));
  return error == {name}::kOk ? 0 : 1;
}}
"""  # noqa: E501


def items_of(
    compiled: CompiledChain, folder: Path, frames: Sequence[Frame], flags: Sequence[str] = ("-O1",)
) -> list[Any]:
    """What the class makes of each frame: records of what was found and what is said of it."""
    name = compiled.name
    compiled.write(folder)
    sources = [folder / f"{name}.cpp", *sorted(folder.glob(f"{name}?*.cpp"))]
    (folder / "main.cpp").write_text(_MAIN.format(name=name))
    isa = compiled.chain.first.isa.toolchain.flags
    program = build(
        folder, "g++", [*sources, folder / "main.cpp"], [*flags, *isa, *WARNINGS, *NO_RUNTIME]
    )
    arguments = []
    for number, frame in enumerate(frames):
        sizes = luma_sizes(frame.format, frame.width, frame.height)
        steps = {source.plane: frame.step(source) for source in frame.sources}
        data = b""
        for plane in range(3):
            known = plane < len(sizes)
            nbytes = len(frame.planes[plane]) if known else 0
            stride, step = (frame.strides[plane], steps[plane]) if known else (0, 0)
            data += np.array([nbytes, stride, step], "<i4").tobytes()
            data += frame.planes[plane].tobytes() if known else b""
        (folder / f"{number}.raw").write_bytes(data + bytes([frame.mirror]))
        arguments += [list(FORMATS).index(frame.format), frame.width, frame.height]
        arguments += [frame.rotation, f"{number}.raw"]
    subprocess.run([program, *map(str, arguments)], cwd=folder, check=True)
    codes = [answer_code(plan) for plan in compiled.chain.plans]
    first, second = (code.dtype for code in codes if code is not None)
    item = np.dtype([("found", first[1].base), ("answer", second)], align=True)
    text = (folder / f"{name}.h").read_text()
    most = int(text.split("kMax = ")[1].split(";")[0])
    every = np.dtype([("count", "<i4"), ("item", item, (most,))], align=True)
    data = (folder / "items.bin").read_bytes()
    assert len(data) == every.itemsize * len(frames)
    return [row["item"][: row["count"]] for row in np.frombuffer(data, every)]
