"""What the machine that mdlc runs on can execute."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from mdlc.codegen.isa.base import Isa


@cache
def host_cpu_flags() -> frozenset[str]:
    """CPU feature flags as Linux names them; empty where they cannot be read."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    for line in text.splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.split(":", 1)[1].split())
    return frozenset()


def host_machine() -> str:
    """The processor family: "x86_64", "aarch64", "arm" or what the system calls it."""
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64", "armv7l": "arm", "armv8l": "arm"}.get(
        machine, machine
    )


def runs_here(isa: Isa) -> bool:
    """Whether this machine executes the instruction set without an emulator."""
    if not isa.toolchain.triple:
        return True
    if not isa.toolchain.triple.startswith(host_machine()):
        return False
    return isa.toolchain.cpu_flags <= host_cpu_flags() or (
        not host_cpu_flags() and not isa.toolchain.cpu_flags
    )


def host_isa(known: Iterable[Isa]) -> Isa:
    """The instruction set with the widest vectors, and the most features, that runs here."""
    return max(
        (isa for isa in known if runs_here(isa)),
        key=lambda isa: (isa.f32.lanes, isa.f32.registers, len(isa.toolchain.cpu_flags)),
    )
