"""Recurrent layers: all gates of a few units at once, in vectors of units.

The matrix for the previous output is packed as the units are computed: for a block of a few
vectors of units, all gates of the first previous output, then of the second, and so on. A step
reads its products with the input, adds those with the previous output, and applies the formula
of the cell while the sums are in registers. The previous output is where the step before wrote
it, the cell state where the last one is asked for: nothing is copied.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdlc.codegen.code import (
    Body,
    Call,
    Function,
    Loop,
    Microkernel,
    Pointer,
    Scope,
    Statement,
    Value,
    Variable,
    offset,
)
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Kernel, Schedule, Step
from mdlc.codegen.threads import loop_cases
from mdlc.codegen.tiles.recurrent import Phase, arguments_of, phases, unit_microkernel
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.recurrent import Recurrent
from mdlc.compiler.types import Array, DType
from mdlc.compiler.words import counted

_FMA_LATENCY = 4.0  # cycles until a sum can be added to again, on all cores of today

_PACK = """\
// packed[k][gate][unit] = r[gate][unit][k] for kWidth units, zeros beyond kUsed: a block of the
// matrix for the previous output.
template <int kHidden, int kGates, int kUsed, int kWidth>
inline void pack_gates(const float* r, float* packed) {
  for (int k = 0; k < kHidden; ++k) {
    for (int gate = 0; gate < kGates; ++gate) {
      for (int unit = 0; unit < kWidth; ++unit) {
        *packed++ = unit < kUsed ? r[(gate * kHidden + unit) * kHidden + k] : 0.0F;
      }
    }
  }
}
"""


@dataclass(frozen=True)
class Block:
    """Units of the same shape of block: `count` blocks of `vectors` vectors from unit `first` on.

    Attributes:
        part: elements of the last vector that are units; 0: all.
        offset: where the packed matrix of the first block starts.
    """

    first: int
    count: int
    vectors: int
    part: int
    offset: int


def blocks(hidden: int, vectors: int, isa: KernelIsa, depth: int) -> list[Block]:
    """The blocks of all units; `depth` floats are packed for each unit."""
    width = vectors * isa.lanes
    found = [Block(0, hidden // width, vectors, 0, 0)] if hidden >= width else []
    first = hidden // width * width
    if first < hidden:
        rest = hidden - first
        found.append(Block(first, 1, -(-rest // isa.lanes), rest % isa.lanes, first * depth))
    return found


class RecurrentKernel(Kernel):
    """LSTM, GRU and RNN."""

    name = "recurrent"
    layer = "Recurrent"

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        return (
            isinstance(node.op, Recurrent)
            and isa.dtype is DType.F32
            and all(
                source.type.dtype is DType.F32 or not source.type.dtype.is_float
                for source in (node, *node.inputs)
            )
        )

    def schedules(self, node: Node, isa: KernelIsa) -> Sequence[Schedule]:
        """Tiles of sequences x vectors of units that leave registers for the operands."""
        op = node.op
        assert isinstance(op, Recurrent)
        _, batch, width = node.inputs[0].shape
        gates = max(phase.gates for phase in phases(op))
        most = 1 if op.lengths else min(batch, 4)
        needed = -(-(width // op.gates) // isa.lanes)
        return [
            Schedule("units", (rows, vectors))
            for rows in range(1, most + 1)
            for vectors in (1, 2, 4)
            if (vectors == 1 or vectors <= needed)
            and (rows == vectors == 1 or gates * rows * vectors + rows + 2 <= isa.registers)
        ]

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        op = node.op
        assert isinstance(op, Recurrent)
        steps, batch, width = node.inputs[0].shape
        hidden = width // op.gates
        rows, vectors = schedule.tile
        total = 0.0
        for phase in phases(op):
            for block in blocks(hidden, vectors, isa, 1):
                sums = phase.gates * block.vectors
                reads = sums + rows
                per_input = max(
                    _FMA_LATENCY,
                    sums * rows / isa.fma_per_cycle,
                    reads / isa.loads_per_cycle,
                    (sums * rows + reads) / isa.core.issue_width,
                )
                total += block.count * (hidden * per_input + 30 * rows * block.vectors)
        return steps * math.ceil(batch / rows) * total

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        op = node.op
        assert isinstance(op, Recurrent)
        packed: dict[str, Array] = {}
        for name, source in op.operands(node.inputs).items():
            value = source.constant
            if value is None:
                continue
            packed[name] = self._packed(op, value, schedule, isa) if name == "recurrent" else value
        return packed

    @staticmethod
    def _packed(op: Recurrent, r: Array, schedule: Schedule, isa: KernelIsa) -> Array:
        hidden = r.shape[1]
        pieces = []
        for phase in phases(op):
            gates = r.reshape(op.gates, hidden, hidden)[phase.first : phase.first + phase.gates]
            for block in blocks(hidden, schedule.tile[1], isa, 1):
                width = block.vectors * isa.lanes
                for number in range(block.count):
                    first = block.first + number * width
                    piece = gates[:, first : first + width].transpose(2, 0, 1)
                    pieces.append(np.pad(piece, ((0, 0), (0, 0), (0, width - piece.shape[2]))))
        return np.concatenate([piece.reshape(-1) for piece in pieces]).astype(np.float32)

    def scratch(self, node: Node, schedule: Schedule, isa: KernelIsa) -> int:
        op = node.op
        assert isinstance(op, Recurrent)
        r = node.inputs[1]
        if r.constant is not None:
            return 0
        return self._packed(op, np.zeros(r.shape, np.float32), schedule, isa).nbytes

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        return _Emit(step, isa).code()


class _Emit:
    """The C++ of a layer."""

    def __init__(self, step: Step, isa: KernelIsa) -> None:
        assert isinstance(step.node.op, Recurrent)
        self.op, self.isa, self.step = step.node.op, isa, step
        self.operands = self.op.operands(step.node.inputs)
        self.count, self.batch, width = step.node.inputs[0].shape
        self.gates = self.op.gates
        self.hidden = width // self.gates
        self.rows, self.vectors = step.schedule.tile
        self.state = self.batch * self.hidden  # elements of a row of the result

    def code(self) -> Function:
        op, node = self.op, self.step.node
        constants = [name for name, each in self.operands.items() if each.constant is not None]
        runtime = [name for name in self.operands if name not in constants]
        lines: list[Statement] = []
        if "recurrent" in runtime:
            lines += ["float* packed = reinterpret_cast<float*>(scratch);", *self._pack()]
        whole, rest = divmod(self.batch, self.rows)
        cases = [(whole, self._tile(self.rows, 0, whole))] if whole else []
        cases += [(1, self._tile(rest, whole * self.rows, 1))] if rest else []
        if len(cases) > 1:  # of one trip each: names of their own
            cases = [(n, inside if n > 1 else (Scope(inside),)) for n, inside in cases]
        marks = [
            op.cell.lower(),
            f"{self.count}x{self.batch}x{self.hidden}",
            *(["reverse"] if op.reverse else []),
            *(["lengths"] if op.lengths else []),
        ]
        return self.step.function(
            "_".join(marks),
            lines,
            loop_cases("tile", cases, shared=True),
            comment=[
                op.words,
                f"{counted(self.count, 'step')} of {counted(self.batch, 'sequence')}, "
                f"{counted(self.hidden, 'unit')}, "
                f"{self.rows} x {self.vectors * self.isa.lanes} at once.",
            ],
            inputs=runtime,
            scratch="recurrent" in runtime,
            includes=("cstring", "cstdint") if node.type.size else (),
        )

    def _phases(self) -> list[tuple[Phase, int, list[Block]]]:
        """Every pass with the place of its packed matrix, and its blocks."""
        found, at = [], 0
        for phase in phases(self.op):
            depth = phase.gates * self.hidden
            parts = blocks(self.hidden, self.vectors, self.isa, depth)
            found.append((phase, at, parts))
            at += depth * sum(p.count * p.vectors * self.isa.lanes for p in parts)
        return found

    def _pack(self) -> list[Statement]:
        """The matrix packed at run time."""
        helper = Microkernel("pack_gates", _PACK)
        lines: list[Statement] = []
        for phase, at, parts in self._phases():
            for block in parts:
                width = block.vectors * self.isa.lanes
                used = width - (self.isa.lanes - block.part if block.part else 0)
                first = (phase.first * self.hidden + block.first) * self.hidden
                matrix = offset(
                    "recurrent", (block.count, "block", width * self.hidden), fixed=first
                )
                arguments = (matrix, self._panel("packed", phase, at, block))
                call = Call(helper, arguments, (self.hidden, phase.gates, used, width))
                lines.append(Loop("block", block.count, (call,)))
        return lines

    def _panel(self, base: str, phase: Phase, at: int, block: Block) -> Pointer:
        """The packed matrix of a block."""
        width = block.vectors * self.isa.lanes
        step = (block.count, "block", width * phase.gates * self.hidden)
        return offset(base, step, fixed=at + block.offset)

    def _tile(self, rows: int, first: int, count: int) -> Body:
        """All steps of a few sequences, from number `first` on or, of `count`, `tile * rows`."""
        op = self.op

        def part(base: str, size: int, row: int = 0, fixed: int = 0) -> Pointer:
            """These sequences' elements; row: elements of a step, of which t is the number."""
            return offset(
                base,
                (1 if single else self.count, "t", row),
                (count, "tile", rows * size),
                fixed=fixed + (0 if count > 1 else first * size),
            )

        single = self.count == 1 and not op.lengths
        lstm = op.cell == "LSTM"
        last = part("y", self.hidden, fixed=self.count * self.state)
        lines: list[Statement] = [Variable("float*", "last", last)]
        if lstm:
            cell = part("y", self.hidden, fixed=(self.count + 1) * self.state)
            lines.append(Variable("float*", "c", cell))
        bytes_ = rows * self.hidden * 4
        steps = str(self.count)
        if op.lengths:
            ends = f"*({part('lengths', 1)})"
            row = Pointer("y", (("t", self.state),))
            row = row.plus("tile", rows * self.hidden) if count > 1 else row + first * self.hidden
            lines += [
                f"const int length = static_cast<int>({ends} < 0 ? 0 : ({ends} > {self.count} ? "
                f"{self.count} : {ends}));",
                f"for (int t = length; t < {self.count}; ++t) {{",
                f"std::memset({row}, 0, {bytes_});",
                "}",
                "if (length == 0) {",
                f"std::memset(last, 0, {bytes_});",
                *([f"std::memset(c, 0, {bytes_});"] if lstm else []),
                "} else {",
            ]
            steps = "length"
        if lstm:
            lines.append(f"std::memcpy(c, {part('first_cell', self.hidden)}, {bytes_});")
        lines.append(Variable("const float*", "h", part("first_output", self.hidden)))
        if op.reverse:
            start = f"for (int t = {steps} - 1; t >= 0; --t) {{"
        else:
            start = f"for (int t = 0; t < {steps}; ++t) {{"
        wide = self.hidden * self.gates
        inside: list[Statement] = [
            Variable("const float*", "p", part("projected", wide, self.state * self.gates)),
            Variable("float*", "out", part("y", self.hidden, self.state)),
            *self._steps(rows),
            "h = out;",
        ]
        lines += inside if single else [start, *inside, "}"]
        lines.append(f"std::memcpy(last, h, {bytes_});")
        lines += ["}"] if op.lengths else []
        return tuple(lines)

    def _steps(self, rows: int) -> list[Statement]:
        """One step of a few sequences."""
        matrix = self.operands["recurrent"]
        lines: list[Statement] = []
        for phase, at, parts in self._phases():
            for block in parts:
                width = block.vectors * self.isa.lanes

                def unit(base: str, width: int = width, block: Block = block) -> Pointer:
                    return offset(base, (block.count, "block", width), fixed=block.first)

                arguments: list[Value] = [unit("p")]
                packed = "packed" if matrix.constant is None else "recurrent"
                arguments.append(self._panel(packed, phase, at, block))
                for name, indexed in arguments_of(self.op, phase):
                    arguments.append(unit(name) if indexed else name)
                arguments.append(unit("out"))
                tile = unit_microkernel(self.op, phase, rows, block.vectors, block.part, self.isa)
                call = Call(tile, tuple(arguments), (self.hidden,))
                lines.append(Loop("block", block.count, (call,)))
        return lines


KERNELS = (RecurrentKernel(),)
