"""Matrices transposed in registers: as many rows and columns at a time as a vector has lanes."""

from __future__ import annotations

from mdlc.codegen.code import Microkernel
from mdlc.codegen.isa.dialect import Dialect
from mdlc.codegen.templates import render


def transposes(isa: Dialect) -> bool:
    """Whether the dialect spells what `transpose_band` needs."""
    return isa.lanes > 1 and "zip_low" in isa.spell


def transpose_band(isa: Dialect) -> Microkernel:
    """transpose_f32_neon(x, x_step, y, y_step, columns): y[r][c] = x[c][r], r below the lanes.

    A block of n x n elements is n vectors; log2(n) times, each of the first half is interleaved
    with its fellow of the second half, which turns the digits of an element's place in binary
    (row, column) round by one each time. The last block overlaps the one before where the columns
    are no multiple of n; there must be n of them.
    """
    rounds, names = [], [f"a0_{i}" for i in range(isa.lanes)]
    for number in range(1, isa.lanes.bit_length()):
        lines, half = [], isa.lanes // 2
        for i in range(half):
            for which, hook in enumerate(("zip_low", "zip_high")):
                name = f"a{number}_{2 * i + which}"
                lines.append(
                    f"const {isa.vector} {name} = {isa.op(hook, names[i], names[i + half])};"
                )
        names = [f"a{number}_{i}" for i in range(isa.lanes)]
        rounds.append(lines)
    name = f"transpose_{isa.kind}_{isa.suffix}"
    text = render("cpp/kernels/transpose.j2", name=name, isa=isa, rounds=rounds, results=names)
    return Microkernel(name, text)
