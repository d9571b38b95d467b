"""Shared libraries as they would run on a processor without AVX-512.

ONNX Runtime and ncnn choose their kernels by what the cpuid instruction says, and no setting
narrows that; on most processors no program can be told otherwise by the system either (that takes
CPUID faulting). So a copy of the package is made in which every cpuid instruction is replaced by
a trap, and a preloaded handler (no_avx512.c) answers in its place, without AVX-512. Nothing else
of the library changes, and a trap costs time only where a library looks the processor over.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click

_CPUID, _TRAP = b"\x0f\xa2", b"\xcc\x90"


def copy_package(package: str, folder: Path) -> int:
    """Copies an installed package into a folder, its cpuid instructions replaced by traps.

    Returns:
        How many were replaced.

    Raises:
        click.ClickException: the package has none, or objdump is missing.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed")
    home = Path(spec.origin).parent
    replaced = 0
    for part in (home, home.with_name(f"{package}.libs")):
        if part.exists():
            shutil.copytree(part, folder / part.name)
    for library in folder.rglob("*.so*"):
        replaced += replace_cpuid(library)
    if not replaced:
        raise click.ClickException(f"{package} has no cpuid instruction: it cannot be narrowed")
    return replaced


def replace_cpuid(library: Path) -> int:
    """Replaces the cpuid instructions of a shared library or program by traps; how many."""
    content = bytearray(library.read_bytes())
    found = 0
    for offset in _cpuid_offsets(library):
        if content[offset : offset + 2] != _CPUID:
            raise click.ClickException(f"{library.name} has no cpuid where objdump says: {offset}")
        content[offset : offset + 2] = _TRAP
        found += 1
    if found:
        library.write_bytes(content)
    return found


def _cpuid_offsets(library: Path) -> Iterator[int]:
    """Where cpuid instructions lie in the file, as disassembled."""
    # -F: section headers and labels come with offsets in the file, as addresses alone would not.
    command = ["objdump", "-d", "-F", "--no-show-raw-insn", str(library)]
    if shutil.which(command[0]) is None:
        raise click.ClickException("objdump is missing: install binutils")
    shift = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if label := re.match(r"([0-9a-f]+) <.*\(File Offset: 0x([0-9a-f]+)\)", line):
                shift = int(label[2], 16) - int(label[1], 16)
            elif line.rstrip().endswith("\tcpuid"):
                yield int(line.partition(":")[0], 16) + shift


def build_handler(folder: Path) -> Path:
    """The library to preload."""
    source, made = Path(__file__).with_name("no_avx512.c"), folder / "no_avx512.so"
    command = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", str(source), "-o", str(made)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"{source.name} does not compile: {done.stderr[-300:]}")
    return made


def environment(package: str, folder: Path) -> dict[str, str]:
    """The environment of a Python that imports the package as on a processor without AVX-512."""
    folder.mkdir()
    copy_package(package, folder)
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    return {"LD_PRELOAD": str(build_handler(folder)), "PYTHONPATH": path}
