"""AArch64 instructions that a program executes, counted exactly by a qemu-user plugin."""

from __future__ import annotations

from dataclasses import dataclass

from mdlc.codegen.run.executable import Executable
from mdlc.codegen.run.qemu_plugins import watch_inference

PLUGIN, WORD = "count_instructions", "COUNTS"
CLASSES = ("all", "fmla", "dot", "mmla", "load", "store", "branch", "simd", "prefetch")


@dataclass(frozen=True)
class Counts:
    """Instructions by class, each list in the order of CLASSES."""

    total: tuple[int, ...]
    layers: dict[str, tuple[int, ...]]


def count(executable: Executable) -> Counts:
    """One inference of a network built for AArch64: its second, on zeros, and its layers'.

    Raises:
        MdlcError: it needs no emulator here, or fails in it.
    """
    watched = watch_inference(executable, PLUGIN, WORD)
    return Counts(watched.total, watched.layers)
