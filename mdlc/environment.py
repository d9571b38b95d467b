"""What mdlc runs on: for bug reports."""

from __future__ import annotations

import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, requires, version

from mdlc.codegen.target import find_target, targets
from mdlc.compiler.errors import MdlcError
from mdlc.version import __version__

COMPILERS = ("g++", "clang++", "aarch64-linux-gnu-g++", "qemu-aarch64")


def environment() -> str:
    """Versions of mdlc, Python, packages and compilers, the system, and what targets need here.

    No path, name of a machine or of a user is in it.
    """
    lines = [
        f"mdlc {__version__}",
        f"Python {platform.python_version()} ({platform.python_implementation()})",
        f"system {platform.system()} {platform.release()} {platform.machine()}",
        f"host target {find_target('host').name}",
        "",
        "packages",
    ]
    for requirement in sorted(requires("mdlc") or ()):
        if "extra ==" in requirement:
            continue
        name = requirement.partition(">")[0].partition("=")[0].strip()
        try:
            lines.append(f"  {name} {version(name)} (asked for: {requirement})")
        except PackageNotFoundError:
            lines.append(f"  {name} is missing (asked for: {requirement})")
    lines += ["", "compilers"]
    lines += [f"  {name}: {_first_line(name)}" for name in COMPILERS]
    lines += ["", "targets"]
    for target in targets().values():
        try:
            compiler, runner = target.needs()
            lines.append(f"  {target.name}: {compiler}, {runner}")
        except MdlcError as error:
            lines.append(f"  {target.name}: {error.reason}")
    return "\n".join(lines)


def _first_line(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        return "not here"
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    return (done.stdout.splitlines() or ["says nothing"])[0].removeprefix(path).strip()
