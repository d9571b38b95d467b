"""AArch64 instructions that a program executes, counted exactly by a qemu-user plugin."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np

from mdlc.codegen.executable import Executable

_SOURCE = "qemu/count_instructions.c"
CLASSES = ("all", "fmla", "dot", "mmla", "load", "store", "branch", "simd")


@dataclass(frozen=True)
class Counts:
    """Instructions by class, each list in the order of CLASSES."""

    total: tuple[int, ...]
    layers: dict[str, tuple[int, ...]]


@cache
def plugin() -> Path:
    """The plugin, built with the machine's C compiler."""
    folder = Path(tempfile.mkdtemp(prefix="mdlc-qemu-"))
    source, target = folder / "count_instructions.c", folder / "count_instructions.so"
    source.write_bytes(resources.files("mdlc.runtime_templates").joinpath(_SOURCE).read_bytes())
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", str(source), "-o", str(target)], check=True)
    return target


def readings(command: list[str], qemu: list[str]) -> list[tuple[int, ...]]:
    """The counts at each reading of the clock and at the end of a program under `qemu`."""
    done = subprocess.run(
        [qemu[0], "-plugin", str(plugin()), *qemu[1:], *command], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr[-400:]}")
    lines = [line.split()[1:] for line in done.stderr.splitlines() if line.startswith("COUNTS")]
    return [tuple(map(int, line)) for line in lines]


def _minus(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(x - y for x, y in zip(a, b, strict=True))


def count(executable: Executable) -> Counts:
    """One inference of a network built for AArch64: its second, on zeros, and its layers'."""
    plan, qemu = executable.plan, list(executable.toolchain.runner)
    frame = b"".join(np.zeros(p.type.shape, p.type.dtype.numpy).tobytes() for p in plan.inputs)
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "in", Path(scratch) / "out"
        source.write_bytes(frame)
        weights = executable.directory / f"{plan.name}.weights"
        command = [str(executable.program), "time", "2", str(weights), str(source), str(target)]
        seen = readings(command, qemu)
    # Two whole inferences, a reading before and after each; then two with one after each layer.
    # What a reading itself takes is measured between the inferences.
    clock = _minus(seen[2], seen[1])
    total = _minus(_minus(seen[3], seen[2]), clock)
    steps = [step.name for step in plan.steps]
    start = 4 + len(steps) + 1
    layers = {
        name: _minus(_minus(seen[start + i + 1], seen[start + i]), clock)
        for i, name in enumerate(steps)
    }
    return Counts(total, layers)
