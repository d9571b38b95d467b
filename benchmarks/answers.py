"""What a detector's answer costs: YOLO11n's 8,400 candidates of 80 classes, of which 20 boxes stay.

    python -m benchmarks.answers

AArch64 instructions of the emitted decoder, counted by qemu; those that read the scores once (a
load and a maximum for four of them) beside. Time of the emitted decoder and of the same in NumPy
(a threshold on the largest score, then boxes and suppression of what passes), one thread, in one
run on this machine.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from mdlc.codegen.answer.answer import parse_answer
from mdlc.codegen.answer.code import AnswerCode, Network
from mdlc.codegen.isa.arm.neon import ISA as NEON
from mdlc.codegen.kernel import View
from mdlc.codegen.plan.plan import Port
from mdlc.codegen.run.instruction_counts import CLASSES, PLUGIN, WORD
from mdlc.codegen.run.qemu_plugins import minus, readings, watch
from mdlc.codegen.run.toolchain import BUILD_FLAGS, find_toolchain
from mdlc.codegen.templates import render
from mdlc.compiler.types import Array, DType, TensorType

CLASSES_OF_COCO, CANDIDATES, SIZE = 80, 8400, 640
THRESHOLD, OVERLAP = 0.25, 0.45
_PROGRAM = """
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>
class Net {{
 public:
{transform}
{struct}
}};
namespace {{
{source}
}}
int main(int, char** argv) {{
  std::vector<float> data({size});
  std::FILE* file = std::fopen(argv[1], "rb");
  if (std::fread(data.data(), 4, data.size(), file) != data.size()) return 2;
  static Net::Boxes boxes;
  Decode(data.data(), Net::Transform(), boxes);
  const int repeats = std::atoi(argv[2]);
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < repeats; ++i) Decode(data.data(), Net::Transform(), boxes);
  const auto end = std::chrono::steady_clock::now();
  const double seconds = std::chrono::duration<double>(end - start).count();
  std::printf("%d %.9f\\n", boxes.count, seconds / repeats);
  return 0;
}}
"""


def example_tensor(seed: int = 0) -> Array:
    """1x84x8400: twenty objects, five candidates around each, and low scores elsewhere."""
    rng = np.random.default_rng(seed)
    table = np.empty((4 + CLASSES_OF_COCO, CANDIDATES), np.float32)
    table[:2] = rng.uniform(0, SIZE, (2, CANDIDATES))
    table[2:4] = rng.uniform(8, 200, (2, CANDIDATES))
    table[4:] = rng.uniform(0, 0.05, (CLASSES_OF_COCO, CANDIDATES))
    for k, place in enumerate(rng.choice(CANDIDATES - 5, 20, replace=False)):
        x, y = 64 + 128 * (k % 5), 80 + 160 * (k // 5)
        for near in range(5):
            table[:4, place + near] = [x + near, y - near, 60, 80]
            table[4 + k, place + near] = 0.9 - 0.05 * near
    return table[None]


def decoder() -> AnswerCode:
    """The emitted decoder of yolo11."""
    tensor = TensorType((1, 4 + CLASSES_OF_COCO, CANDIDATES), DType.F32)
    port = Port("output0", "output0", View.of(tensor, 0))
    answer = parse_answer({"decoder": "yolo11", "threshold": THRESHOLD, "overlap": OVERLAP})
    return answer.code(Network("Net", {"output0": port}, SIZE, SIZE))


def in_numpy(tensor: Array) -> Array:
    """The same with NumPy: boxes that stay."""
    table = tensor[0]
    scores = table[4:]
    best = scores.max(0)
    sure = np.nonzero(best > THRESHOLD)[0]
    labels, best = scores[:, sure].argmax(0), best[sure]
    middle, half = table[:2, sure], table[2:4, sure] / 2
    boxes = np.concatenate([middle - half, middle + half]).T
    order, kept = np.argsort(-best), []
    while order.size:
        first, order = order[0], order[1:]
        kept.append(first)
        low = np.maximum(boxes[first, :2], boxes[order, :2])
        high = np.minimum(boxes[first, 2:], boxes[order, 2:])
        shared = np.prod(np.maximum(high - low, 0), 1)
        area = np.prod(boxes[:, 2:] - boxes[:, :2], 1)
        union = area[first] + area[order] - shared
        order = order[(shared <= OVERLAP * union) | (labels[order] != labels[first])]
    found: Array = boxes[kept]
    return found


def build(folder: Path, compiler: list[str]) -> Path:
    """The decoder as a program."""
    code = decoder()
    size = code.outputs[0].type.size
    text = _PROGRAM.format(
        transform=render("cpp/answer/transform_struct.j2"),
        struct=code.struct,
        source=code.source,
        size=size,
    )
    source, program = folder / "decode.cpp", folder / "decode"
    source.write_text(text)
    subprocess.run([*compiler, *BUILD_FLAGS, str(source), "-o", str(program)], check=True)
    return program


def counted(folder: Path, data: Path) -> tuple[int, ...]:
    """AArch64 instructions of one decoding, by CLASSES."""
    chain = find_toolchain(NEON)
    program = build(folder, [*chain.compiler, *(["-static"] if chain.runner else [])])
    one, two = (
        readings(watch(PLUGIN, chain.runner, [str(program), str(data), n]), WORD)
        for n in ("1", "2")
    )
    return minus(minus(two[1], two[0]), minus(one[1], one[0]))


def timed(folder: Path, data: Path, tensor: Array, rounds: int) -> tuple[float, float]:
    """Medians in microseconds: the emitted decoder, and NumPy."""
    program = build(folder, ["g++"])
    mine, theirs = [], []
    for _ in range(rounds):
        done = subprocess.run(
            [str(program), str(data), "50"], capture_output=True, text=True, check=True
        )
        boxes, seconds = done.stdout.split()
        start = time.perf_counter()
        for _ in range(10):
            found = in_numpy(tensor)
        theirs.append((time.perf_counter() - start) / 10)
        mine.append(float(seconds))
        assert int(boxes) == len(found) == 20
    return float(np.median(mine)) * 1e6, float(np.median(theirs)) * 1e6


@click.command(help=__doc__)
@click.option("--rounds", default=7, show_default=True)
def main(rounds: int) -> None:
    """See the module."""
    tensor = example_tensor()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = folder / "data"
        data.write_bytes(tensor.tobytes())
        counts = dict(zip(CLASSES, counted(folder, data), strict=True))
        mine, theirs = timed(folder, data, tensor, rounds)
    reading = 2 * CLASSES_OF_COCO * CANDIDATES // NEON.dialects[DType.F32].lanes
    table = Table("", "")
    table.add_row("AArch64 instructions", f"{counts['all'] / 1e6:.3f} million")
    table.add_row("of them a load and a maximum for four scores", f"{reading / 1e6:.3f} million")
    table.add_row("beyond", f"{(counts['all'] - reading) / 1e6:.3f} million")
    table.add_row("emitted decoder, this machine", f"{mine:.1f} us")
    table.add_row("NumPy, this machine", f"{theirs:.1f} us")
    table.add_row("ratio", f"{mine / theirs:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
