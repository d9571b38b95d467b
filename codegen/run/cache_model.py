"""Cache misses of a program under a model of a core's data caches, by a qemu-user plugin.

Least recently used line out, no prefetcher: a guard against schedules that save instructions by
moving more data, not a prediction of time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mdlc.codegen.isa.cores import core_named
from mdlc.codegen.run.executable import Executable
from mdlc.codegen.run.qemu_plugins import Reading, watch_inference

PLUGIN, WORD = "cache_model", "CACHES"
LINE = 64


@dataclass(frozen=True)
class CoreModel:
    """The data caches of a core: bytes, ways, and whether L2 holds what L1 holds."""

    name: str
    l1_bytes: int
    l1_ways: int
    l2_bytes: int
    l2_ways: int
    exclusive: bool

    @property
    def option(self) -> str:
        """The plugin's argument."""
        kind = "exclusive" if self.exclusive else "inclusive"
        sizes = f"{self.l1_bytes}:{self.l1_ways}:{self.l2_bytes}:{self.l2_ways}"
        return f"{self.name}={sizes}:{kind}"


def _model(name: str, l1_ways: int, l2_ways: int, *, exclusive: bool) -> CoreModel:
    core = core_named(name)
    return CoreModel(name, core.l1_bytes, l1_ways, core.l2_bytes, l2_ways, exclusive)


# Arm Cortex-A55 Core Technical Reference Manual (100442), A6.1 and A7.1: L1 of 16, 32 or 64 KiB,
# 4 ways; L2 of 64, 128 or 256 KiB, 4 ways, strictly exclusive. The sizes are those of many phones.
CORTEX_A55 = _model("cortex-a55", 4, 4, exclusive=True)
# Arm Cortex-A76 Core Technical Reference Manual (100798), A6.1 and A7.1: L1 of 64 KiB, 4 ways;
# L2 of 128, 256 or 512 KiB, 8 ways, inclusive.
CORTEX_A76 = _model("cortex-a76", 4, 8, exclusive=False)
CORES = (CORTEX_A55, CORTEX_A76)


@dataclass(frozen=True)
class Misses:
    """Lines of 64 bytes that a core's caches had not.

    Attributes:
        l1_reads, l1_writes: missed in L1; l2: missed in L2 too, read from further out;
        writebacks: lines written further out than L2.
    """

    l1_reads: int
    l1_writes: int
    l2: int
    writebacks: int

    @property
    def l1(self) -> int:
        """Missed in L1, reads and writes."""
        return self.l1_reads + self.l1_writes

    @property
    def memory_bytes(self) -> int:
        """Moved between L2 and what is behind it, both ways."""
        return (self.l2 + self.writebacks) * LINE


@dataclass(frozen=True)
class Traffic:
    """What an inference, or a layer, moves: bytes by load and store instructions, and misses."""

    bytes_read: int
    bytes_written: int
    misses: dict[str, Misses]


def traffic(reading: Reading, cores: Sequence[CoreModel] = CORES) -> Traffic:
    """The plugin's numbers, by the cores that it was given."""
    read, written, *rest = reading
    parts = [rest[i : i + 4] for i in range(0, len(rest), 4)]
    named = zip(cores, parts, strict=True)
    return Traffic(read, written, {core.name: Misses(*part) for core, part in named})


def options(cores: Sequence[CoreModel] = CORES) -> list[str]:
    """The plugin's arguments for these cores, four at most."""
    return [core.option for core in cores]


def measure(
    executable: Executable, cores: Sequence[CoreModel] = CORES
) -> tuple[Traffic, dict[str, Traffic]]:
    """One inference of a network built for AArch64, its second, and its layers by name.

    Raises:
        MdlcError: it needs no emulator here, or fails in it.
    """
    watched = watch_inference(executable, PLUGIN, WORD, options(cores))
    layers = {name: traffic(reading, cores) for name, reading in watched.layers.items()}
    return traffic(watched.total, cores), layers
