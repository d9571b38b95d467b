"""Plugins of qemu-user that watch a program: built here, run, their lines read."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np

from mdlc.codegen.run.executable import Executable
from mdlc.compiler.errors import MdlcError

Reading = tuple[int, ...]
_READING = re.compile(r"[A-Z]+( \d+)+")


@cache
def build(name: str) -> Path:
    """A plugin from runtime_templates/qemu/, built with the machine's C compiler.

    Raises:
        MdlcError: there is no C compiler.
    """
    compiler = next((c for c in ("cc", "gcc", "clang") if shutil.which(c)), None)
    if compiler is None:
        raise MdlcError("a plugin of qemu needs a C compiler", hint="install gcc or clang")
    folder = Path(tempfile.mkdtemp(prefix="mdlc-qemu-"))
    source, target = folder / f"{name}.c", folder / f"{name}.so"
    text = resources.files("mdlc.runtime_templates").joinpath(f"qemu/{name}.c").read_bytes()
    source.write_bytes(text)
    subprocess.run(
        [compiler, "-O2", "-shared", "-fPIC", str(source), "-o", str(target)], check=True
    )
    return target


def watch(
    plugin: str,
    qemu: Sequence[str],
    command: Sequence[str],
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> list[str]:
    """What a program and the plugin write to the standard error, line by line.

    Args:
        plugin: its name; options: its arguments, name=value.
        qemu: the emulator with its arguments; command: the program with its arguments.

    Raises:
        MdlcError: the program fails, or this qemu takes no plugins.
    """
    start = [qemu[0], "-plugin", ",".join([str(build(plugin)), *options]), *qemu[1:], *command]
    done = subprocess.run(
        start, capture_output=True, text=True, errors="replace", env=environment, check=False
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if not _READING.fullmatch(line)]
        reason = " ".join(" ".join(said)[-400:].split()) or f"exit code {done.returncode}"
        raise MdlcError(f"{Path(command[0]).name} failed under {Path(qemu[0]).name}: {reason}")
    return done.stderr.splitlines()


def readings(lines: Sequence[str], word: str) -> list[Reading]:
    """The numbers of the lines that begin with `word`."""
    found = [line.split()[1:] for line in lines if line.startswith(word)]
    return [tuple(map(int, line)) for line in found]


def minus(a: Reading, b: Reading) -> Reading:
    """Difference number by number."""
    return tuple(x - y for x, y in zip(a, b, strict=True))


@dataclass(frozen=True)
class Watched:
    """One inference and its layers, by name."""

    total: Reading
    layers: dict[str, Reading]


def watch_inference(
    executable: Executable, plugin: str, word: str, options: Sequence[str] = ()
) -> Watched:
    """The second inference of a network built for an emulated machine, on zeros.

    Raises:
        MdlcError: the network runs without an emulator here, or it fails.
    """
    plan, qemu = executable.plan, executable.toolchain.runner
    if not qemu:
        raise MdlcError(f"{plan.isa.name} runs without an emulator here", node="--target")
    frame = b"".join(np.zeros(p.type.shape, p.type.dtype.numpy).tobytes() for p in plan.inputs)
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "in", Path(scratch) / "out"
        source.write_bytes(frame)
        weights = executable.directory / f"{plan.name}.weights"
        command = [str(executable.program), "time", "2", str(weights), str(source), str(target)]
        seen = readings(watch(plugin, qemu, command, options), word)
    return split(seen, [step.name for step in plan.steps])


def split(seen: Sequence[Reading], steps: Sequence[str]) -> Watched:
    """The readings of the runner, apart.

    It does two whole inferences, a reading before and after each; then two with a reading when the
    inputs are there and one after each layer. What a reading itself takes is measured between the
    inferences.
    """
    clock = minus(seen[2], seen[1])
    total = minus(minus(seen[3], seen[2]), clock)
    start = 4 + len(steps) + 1
    layers = {
        name: minus(minus(seen[start + i + 1], seen[start + i]), clock)
        for i, name in enumerate(steps)
    }
    return Watched(total, layers)
