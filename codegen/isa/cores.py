"""Processor cores as data: what the cost model counts with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Core:
    """One core of a processor, as far as the cost model knows it.

    Attributes:
        name: as `--core` takes it.
        description: one line.
        l1_bytes, l2_bytes: data caches of one core, for blocking.
        issue_width: instructions started per cycle.
        fma_per_cycle: vector multiply-adds started per cycle; loads_per_cycle: vector loads.
            Both of vectors of at most `vector_bytes`; longer ones take several turns.
        fma_latency: cycles from a multiply-add to the next one on its sum.
        stream_bytes: what it reads from main memory per cycle.
    """

    name: str
    description: str
    l1_bytes: int = 32 << 10
    l2_bytes: int = 512 << 10
    issue_width: float = 6.0
    fma_per_cycle: float = 2.0
    loads_per_cycle: float = 2.0
    vector_bytes: int = 64
    fma_latency: float = 4.0
    stream_bytes: float = 4.0

    def per_cycle(self, rate: float, nbytes: int) -> float:
        """The rate of operations on vectors of so many bytes."""
        return rate * min(1.0, self.vector_bytes / nbytes)


# The choice where no core is named: no product, but what suits the cores of a target best.
# What phones have in common: every instruction counts, as on the cores that start two at once
# (Cortex-A55); 12 GB/s at 3 GHz is what a core of a phone reads, and room in its memory.
AARCH64 = Core("aarch64", "AArch64 in general", issue_width=2.0)
X86_64 = Core("x86-64", "x86-64 in general")
X86_64_V4 = Core("x86-64-v4", "x86-64 with AVX-512 in general", l2_bytes=1024 << 10)
SCALAR = Core("scalar", "any processor, one element at a time", fma_per_cycle=1.0)
