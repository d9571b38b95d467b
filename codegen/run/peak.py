"""The peak of a core, measured: what `mdlc bench` compares layers with."""

from __future__ import annotations

from mdlc.codegen.isa.base import Isa
from mdlc.codegen.templates import render

ITERATIONS = 2_000_000
REPEATS = 5


def peak_source(isa: Isa) -> str:
    """A C++ program that prints GFLOP/s (two for a multiply-add) of one core on float32.

    It keeps as many independent chains as registers allow beside the two operands, which hides
    the latency of the multiply-adds on every core known (latency 4 to 5, two per cycle).
    """
    chains = min(isa.f32.registers - 4, 12)
    return render(
        "cpp/peak.cpp.j2",
        isa=isa.f32,
        name=isa.name,
        header=isa.toolchain.header,
        chains=chains,
        iterations=ITERATIONS,
        repeats=REPEATS,
        flops=2 * chains * isa.f32.lanes * ITERATIONS,
    )
