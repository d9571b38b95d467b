"""Many layers in one program, without the class around them: for tests of each by itself.

All memory is one block: weights, inputs, outputs and scratch memory of every layer, with guards
between. The block comes back whole, so that what a layer must not touch is seen to be as it was.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mdlc.codegen.code import C_TYPES
from mdlc.codegen.cpp.functions import Functions, layer_function
from mdlc.codegen.cpp.kernels_file import includes_of, ordered
from mdlc.codegen.isa.base import Isa
from mdlc.codegen.kernel import Candidate, Step, View, row_length, seen_by
from mdlc.codegen.plan.plan import ALIGNMENT
from mdlc.codegen.run.toolchain import BUILD_FLAGS, find_toolchain
from mdlc.compiler.ir import Node
from mdlc.compiler.types import Array, DType, TensorType

# Bytes between arrays, and what they hold; a float of it is not a number.
GUARD, FILL = 256, 0xFF

_MAIN = """\
int main(int, char** argv) {{
  static unsigned char storage[{size} + {alignment}];
  unsigned char* const m =
      storage + ({alignment} - reinterpret_cast<std::uintptr_t>(storage) % {alignment});
  std::FILE* file = std::fopen(argv[1], "rb");
  if (file == nullptr || std::fread(m, 1, {size}, file) != {size}) return 1;
  std::fclose(file);
{calls}
  file = std::fopen(argv[2], "wb");
  return file != nullptr && std::fwrite(m, 1, {size}, file) == {size} && std::fclose(file) == 0
             ? 0 : 1;
}}
"""


class Block:
    """The program's memory, filled piece by piece."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0

    def add(self, content: bytes) -> int:
        """Where a piece lies: at a multiple of ALIGNMENT, guards on both sides."""
        start = -(-(self.size + GUARD) // ALIGNMENT) * ALIGNMENT
        filled = start - self.size
        self.parts += [bytes([FILL]) * filled, content]
        self.size = start + len(content)
        return start

    def content(self) -> bytes:
        """All of it, with a guard at the end."""
        return b"".join([*self.parts, bytes([FILL]) * GUARD])


@dataclass(frozen=True)
class Layer:
    """A node, how it is computed, and its run-time inputs' logical values in node order.

    Attributes:
        gap: elements between the innermost rows of inputs and output, where the kernel honours
            pitches.
    """

    node: Node
    candidate: Candidate
    inputs: tuple[Array, ...]
    gap: int = 0


@dataclass(frozen=True)
class Result:
    """A layer's output (logical), and whether it left all other memory as it was."""

    output: Array
    intact: bool


def compute(layers: Sequence[Layer], isa: Isa, folder: Path, flags: Sequence[str]) -> list[Result]:
    """The outputs of all layers by one program, built and run in an empty folder."""
    block = Block()
    steps, calls, outputs, scratches = [], [], [], []
    for number, layer in enumerate(layers):
        node, kernel, schedule = layer.node, layer.candidate.kernel, layer.candidate.schedule
        own = seen_by(node, isa)
        weights = kernel.pack(node, schedule, own)
        arguments = [_argument(block.add(a.tobytes()), C_TYPES[DType.from_numpy(a.dtype)])
                     for a in weights.values()]  # fmt: skip
        sources = [source for source in node.inputs if source.constant is None]
        views = [_view(source.type, layer.gap if kernel.pitched_input else 0) for source in sources]
        for view, value in zip(views, layer.inputs, strict=True):
            content = _spread(view, view.type.to_physical(value)) + bytes(kernel.reads_past)
            arguments.append(_argument(block.add(content), C_TYPES[view.type.dtype]))
        output = _view(node.type, layer.gap if kernel.pitched_output else 0)
        blank = _blank(output)
        outputs.append((output, block.add(blank), len(blank)))
        arguments.append(_argument(outputs[-1][1], C_TYPES[node.type.dtype], const=False))
        scratch = kernel.scratch(node, schedule, own)
        if scratch:
            scratches.append((block.add(bytes([FILL]) * scratch), scratch))
            arguments.append(_argument(scratches[-1][0], "unsigned char", const=False))
        view_of_scratch = View.of(TensorType((scratch,), DType.U8), 0) if scratch else None
        steps.append(
            Step(f"layer{number}", node, kernel, schedule, tuple(views), output, weights,
                 view_of_scratch)
        )  # fmt: skip
        calls.append(", ".join(arguments))
    before = block.content()
    after = _run(steps, calls, before, isa, folder, flags)
    return _results(before, after, outputs, scratches)


def _view(kind: TensorType, gap: int) -> View:
    view = View.of(kind, 0)
    return replace(view, pitch=row_length(kind) + gap) if view.rows > 1 else view


def _blank(view: View) -> bytes:
    return bytes([FILL]) * (view.rows * view.pitch * view.type.dtype.size)


def _spread(view: View, values: Array) -> bytes:
    """A tensor's bytes with the view's pitch."""
    spread = np.frombuffer(_blank(view), values.dtype).reshape(view.rows, view.pitch).copy()
    spread[:, : row_length(view.type)] = values.reshape(view.rows, -1)
    return spread.tobytes()


def _argument(start: int, kind: str, *, const: bool = True) -> str:
    return f"reinterpret_cast<{'const ' if const else ''}{kind}*>(m + {start})"


def _run(
    steps: Sequence[Step],
    arguments: Sequence[str],
    memory: bytes,
    isa: Isa,
    folder: Path,
    flags: Sequence[str],
) -> bytes:
    """The memory after all calls."""
    codes = [layer_function(step, isa) for step in steps]
    functions = Functions()
    names = [functions.add(code) for code in codes]
    calls = "\n".join(f"  {n}({a});" for n, a in zip(names, arguments, strict=True))
    microkernels = ordered(codes)
    headers = {"cstdint", "cstdio", "cstring", "cstddef", *includes_of(codes, microkernels)}
    lines = [f"#include <{name}>" for name in sorted(headers)]
    lines += [f"#include <{isa.toolchain.header}>"] if isa.toolchain.header else []
    lines += ["namespace {", *(m.text for m in microkernels), *functions.texts, "}"]
    lines.append(_MAIN.format(size=len(memory), alignment=ALIGNMENT, calls=calls))
    source, program = folder / "layers.cpp", folder / "layers"
    source.write_text("\n".join(lines))
    toolchain = find_toolchain(isa)
    toolchain.compile([source], program, [*BUILD_FLAGS, *isa.toolchain.flags, *flags])
    (folder / "before").write_bytes(memory)
    command = [*toolchain.runner, str(program), str(folder / "before"), str(folder / "after")]
    subprocess.run(command, check=True, capture_output=True)
    return (folder / "after").read_bytes()


def _results(
    before: bytes,
    after: bytes,
    outputs: Sequence[tuple[View, int, int]],
    scratches: Sequence[tuple[int, int]],
) -> list[Result]:
    """Outputs cut out of the memory; a byte changed elsewhere counts against the output before."""
    changed = np.frombuffer(before, np.uint8) != np.frombuffer(after, np.uint8)
    for start, size in scratches:
        changed[start : start + size] = False
    found = []
    for view, start, size in outputs:
        values = np.frombuffer(after, view.type.dtype.numpy, size // view.type.dtype.size, start)
        rows = values.reshape(view.rows, view.pitch)[:, : row_length(view.type)]
        used = changed[start : start + size].reshape(view.rows, -1)
        used[:, : row_length(view.type) * view.type.dtype.size] = False
        found.append(view.type.to_logical(rows.reshape(-1)))
    owners = np.searchsorted([start for _, start, _ in outputs], np.flatnonzero(changed), "right")
    spoilt = set(owners - 1)
    return [Result(output, number not in spoilt) for number, output in enumerate(found)]
