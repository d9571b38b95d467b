"""Processor cores as data: what the cost model counts with. A new core is an entry of CORES.

Each entry names where its figures come from: the vendors' software optimisation guides and the
scheduling models of LLVM (llvm/lib/Target). What was checked against LLVM, and how:

- llvm-mca 14 on a multiply-add that waits for itself, and on a load: cortex-a72, haswell,
  skylake-avx512 and skylake agree (LLVM lets Skylake start 6, Intel's manual 4). It lets the
  Cortex-A55 start two multiply-adds of 128 bits and a load of 128 bits per cycle, and zen3 one
  multiply-add of 256; the vendors' pipes are of 64 bits and two of 256, which stand here.
- The text of the models on LLVM's main branch: Zen 3 and Zen 4 (6 dispatched, multiply-adds in
  two pipes, two pipes that take vectors loaded), and Neoverse N2, which it takes for the
  Cortex-A710 (5 dispatched, two vector pipes, three loads, 4 cycles, 2 on the accumulator).
- apple-m1: LLVM's Firestorm is its model of Cyclone (2013) under another name, with 6 dispatched,
  two loads and two multiply pipes; what stands here is Apple's guide, which was not read again.
- cortex-x1, sapphire-rapids and zen5: LLVM has another core's model for them, or none. Cortex-A76
  is as Neoverse N1, of which LLVM has one.

Nobody publishes what a core reads from main memory, so `stream_bytes` is the same for all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

KIB = 1 << 10


@dataclass(frozen=True)
class Core:
    """One core of a processor, as far as the cost model knows it.

    Attributes:
        name: as `--core` takes it.
        machine: the processor family that it belongs to, as GNU triples begin; "" for any.
        source: where the figures come from.
        cpu_flags: features beyond the family's base, as Linux names them.
        l1_bytes, l2_bytes: data caches of one core, for blocking.
        issue_width: instructions started per cycle.
        fma_per_cycle: vector multiply-adds started per cycle; loads_per_cycle: vector loads.
            Both of vectors of at most `vector_bytes`; longer ones take several turns.
        fma_latency: cycles from a multiply-add to the next one on its sum.
        stream_bytes: what it reads from main memory per cycle.
        general: whether it is the choice where no core is named: no product, but what suits the
            processors of a target best.
    """

    name: str
    machine: str
    source: str
    cpu_flags: frozenset[str] = frozenset()
    l1_bytes: int = 32 * KIB
    l2_bytes: int = 512 * KIB
    issue_width: float = 6.0
    fma_per_cycle: float = 2.0
    loads_per_cycle: float = 2.0
    vector_bytes: int = 64
    fma_latency: float = 4.0
    stream_bytes: float = 4.0  # 12 GB/s at 3 GHz
    general: bool = False

    def per_cycle(self, rate: float, nbytes: int) -> float:
        """The rate of operations on vectors of so many bytes."""
        return rate * min(1.0, self.vector_bytes / nbytes)


AARCH64 = Core(
    "aarch64",
    "aarch64",
    # What phones have in common: a core of a phone reads 4 bytes per cycle, and there is room in
    # its memory; every instruction counts, as on the cores that start two at once.
    "AArch64 in general",
    issue_width=2.0,
    general=True,
)
X86_64 = Core("x86-64", "x86_64", "x86-64 in general", general=True)
X86_64_AVX512 = Core(
    "x86-64-avx512", "x86_64", "x86-64 with AVX-512 in general", l2_bytes=1024 * KIB, general=True
)
ARMV7 = Core(
    "armv7",
    "arm",
    "ARM of 32 bits in general; caches of Cortex-A7 boards",
    l2_bytes=256 * KIB,
    issue_width=2.0,
    fma_per_cycle=0.5,
    loads_per_cycle=0.5,
    vector_bytes=16,
    general=True,
)
WASM = Core(
    "wasm",
    "wasm32",
    # Compiled by engines for phones' and desktops' processors; a multiply-add is two instructions.
    "WebAssembly in general",
    issue_width=4.0,
    fma_per_cycle=1.0,
    vector_bytes=16,
    general=True,
)
WASM_RELAXED = replace(
    WASM, name="wasm-relaxed", source="WebAssembly with one instruction for it", fma_per_cycle=2.0
)
SCALAR = Core("scalar", "", "one element at a time, in general", fma_per_cycle=1.0, general=True)

_ARM82 = frozenset({"asimdhp", "fphp", "asimddp"})
_AVX2 = frozenset({"avx2", "fma"})
_AVX512 = _AVX2 | {"avx512f", "avx512dq", "avx512bw", "avx512vl"}
_VNNI = _AVX512 | {"avx512_vnni"}

CORES = (
    Core(
        "cortex-a55",
        "aarch64",
        "LLVM AArch64SchedA55.td: in order, two 64-bit multiply-add pipes, 64 bits loaded per "
        "cycle; Arm TRM 100442, A6.1, A7.1: caches (the sizes of many phones)",
        _ARM82,
        l2_bytes=128 * KIB,
        issue_width=2.0,
        fma_per_cycle=1.0,
        loads_per_cycle=0.5,
        vector_bytes=16,
    ),
    Core(
        "cortex-a72",
        "aarch64",
        "LLVM AArch64SchedA57.td, which it uses for this core: two 64-bit multiply-add pipes, one "
        "load per cycle, 3 instructions decoded; caches of the Raspberry Pi 4 (1 MiB for four)",
        l2_bytes=256 * KIB,
        issue_width=3.0,
        fma_per_cycle=1.0,
        loads_per_cycle=1.0,
        vector_bytes=16,
    ),
    Core(
        "cortex-a76",
        "aarch64",
        "Arm Cortex-A76 Software Optimization Guide: 4 decoded, two 128-bit multiply-add and load "
        "pipes, 4 cycles, 2 on the accumulator; Arm TRM 100798, A6.1, A7.1: caches",
        _ARM82,
        l1_bytes=64 * KIB,
        issue_width=4.0,
        vector_bytes=16,
        fma_latency=2.0,
    ),
    Core(
        "neoverse-n1",
        "aarch64",
        "LLVM AArch64SchedNeoverseN1.td and Arm Neoverse N1 Software Optimization Guide: as "
        "Cortex-A76, with 1 MiB of L2",
        _ARM82,
        l1_bytes=64 * KIB,
        l2_bytes=1024 * KIB,
        issue_width=4.0,
        vector_bytes=16,
        fma_latency=2.0,
    ),
    Core(
        "cortex-x1",
        "aarch64",
        "Arm Cortex-X1 Software Optimization Guide: 5 decoded, four 128-bit multiply-add pipes, "
        "three loads per cycle, 4 cycles, 2 on the accumulator; caches of the Snapdragon 888",
        _ARM82,
        l1_bytes=64 * KIB,
        l2_bytes=1024 * KIB,
        issue_width=5.0,
        fma_per_cycle=4.0,
        loads_per_cycle=3.0,
        vector_bytes=16,
        fma_latency=2.0,
    ),
    Core(
        "cortex-a710",
        "aarch64",
        "Arm Cortex-A710 Software Optimization Guide: 5 decoded, two 128-bit multiply-add pipes, "
        "three loads per cycle, 4 cycles, 2 on the accumulator; L2 of many phones",
        _ARM82 | {"i8mm"},
        l1_bytes=64 * KIB,
        issue_width=5.0,
        loads_per_cycle=3.0,
        vector_bytes=16,
        fma_latency=2.0,
    ),
    Core(
        "apple-m1",
        "aarch64",
        "Apple Silicon CPU Optimization Guide, performance core: 8 decoded, four 128-bit "
        "multiply-add pipes of 4 cycles, three loads per cycle; a quarter of 12 MiB of L2",
        _ARM82,
        l1_bytes=128 * KIB,
        l2_bytes=3072 * KIB,
        issue_width=8.0,
        fma_per_cycle=4.0,
        loads_per_cycle=3.0,
        vector_bytes=16,
    ),
    Core(
        "haswell",
        "x86_64",
        "LLVM X86SchedHaswell.td: 4 per cycle, two 256-bit multiply-add pipes of 5 cycles",
        _AVX2,
        l2_bytes=256 * KIB,
        issue_width=4.0,
        vector_bytes=32,
        fma_latency=5.0,
    ),
    Core(
        "skylake",
        "x86_64",
        "LLVM X86SchedSkylakeClient.td: two 256-bit multiply-add pipes of 4 cycles; Intel "
        "Optimization Reference Manual: 4 renamed per cycle, caches",
        _AVX2,
        l2_bytes=256 * KIB,
        issue_width=4.0,
        vector_bytes=32,
    ),
    Core(
        "skylake-avx512",
        "x86_64",
        "LLVM X86SchedSkylakeServer.td: two 512-bit multiply-add pipes of 4 cycles; Intel "
        "Optimization Reference Manual: 4 renamed per cycle, caches",
        _AVX512,
        l2_bytes=1024 * KIB,
        issue_width=4.0,
    ),
    Core(
        "sapphire-rapids",
        "x86_64",
        "LLVM X86SchedSapphireRapids.td: two 512-bit multiply-add pipes of 4 cycles; Intel "
        "Optimization Reference Manual, Golden Cove: 6 renamed per cycle, 48 KiB and 2 MiB",
        _VNNI,
        l1_bytes=48 * KIB,
        l2_bytes=2048 * KIB,
    ),
    Core(
        "zen3",
        "x86_64",
        "LLVM X86ScheduleZnver3.td and AMD Software Optimization Guide 56665: 6 dispatched, two "
        "256-bit multiply-add pipes of 4 cycles, two vector loads",
        _AVX2,
        vector_bytes=32,
    ),
    Core(
        "zen4",
        "x86_64",
        "LLVM X86ScheduleZnver4.td and AMD Software Optimization Guide 57647: 6 dispatched, two "
        "256-bit multiply-add pipes of 4 cycles, two vector loads; 512 bits take two turns",
        _VNNI,
        l2_bytes=1024 * KIB,
        vector_bytes=32,
    ),
    Core(
        "zen5",
        "x86_64",
        "AMD Software Optimization Guide 58455: 8 dispatched, two 512-bit multiply-add pipes of "
        "4 cycles, two 512-bit loads; 48 KiB and 1 MiB",
        _VNNI,
        l1_bytes=48 * KIB,
        l2_bytes=1024 * KIB,
        issue_width=8.0,
    ),
)


def is_core(name: str) -> bool:
    """Whether there is a core of this name, other than those that stand for many."""
    return any(core.name == name for core in CORES)


def core_named(name: str) -> Core:
    """The entry of a name that is known to be there."""
    return next(core for core in CORES if core.name == name)
