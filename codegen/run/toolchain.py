"""C++ compilers and emulators on this machine."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from mdlc.codegen.isa.base import Isa
from mdlc.codegen.isa.host import host_machine, runs_here
from mdlc.compiler.errors import MdlcError

# Products and sums stay apart unless the source says fma: every compiler then gives the same bits.
BUILD_FLAGS = ("-std=c++17", "-O2", "-fno-exceptions", "-fno-rtti", "-ffp-contract=off")


@dataclass(frozen=True)
class LocalToolchain:
    """A compiler for an ISA's machine, and what runs its programs.

    Attributes:
        compiler: command and fixed arguments; name: for `mdlc targets`.
        runner: command in front of a program; () where the machine runs it itself.
    """

    compiler: tuple[str, ...]
    runner: tuple[str, ...]
    name: str

    def compile(self, sources: Sequence[Path], output: Path, flags: Sequence[str]) -> None:
        """Builds a program.

        Raises:
            MdlcError: the compiler rejects it; the message has its first complaint.
        """
        command = [*self.compiler, *flags, *map(str, sources), "-o", str(output)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise MdlcError(f"cannot be started: {error.strerror}", node=self.name) from error
        if not done.returncode and not output.exists():
            raise MdlcError("compiled nothing", node=self.name, hint="name a C++ compiler")
        if done.returncode:
            complaints = [line for line in done.stderr.splitlines() if "error" in line]
            first = (complaints or done.stderr.splitlines() or ["no message"])[0]
            raise MdlcError(f"{self.name} failed: {first}", node=str(sources[0].name))


def find_toolchain(isa: Isa, runner: Sequence[str] | None = None) -> LocalToolchain:
    """The compiler (and emulator) for an ISA.

    `MDLC_CXX` names a compiler for every target, `MDLC_CXX_<target>` (dashes as underscores, in
    capitals) for one.

    Args:
        runner: the command in front of a program, where the caller knows what runs it.

    Raises:
        MdlcError: there is none.
    """
    native = not isa.toolchain.triple or isa.toolchain.triple.startswith(host_machine())
    compiler = _compiler(isa, native)
    if runner is not None:
        return LocalToolchain(compiler, tuple(runner), _label(compiler))
    if native:
        if not runs_here(isa):
            raise MdlcError(
                f"this processor lacks {isa.description}",
                node="--target",
                hint="use --target host, or run the emitted files on such a machine",
            )
        return LocalToolchain(compiler, (), _label(compiler))
    return LocalToolchain(compiler, _EMULATORS[isa.toolchain.emulator](isa), _label(compiler))


def _qemu(isa: Isa) -> tuple[str, ...]:
    """qemu-user of the machine, which is the first word of the triple."""
    name = "qemu-" + isa.toolchain.triple.split("-")[0]
    emulator = shutil.which(name) or shutil.which(f"{name}-static")
    if emulator is None:
        raise MdlcError(
            f"running {isa.name} on this machine needs {name}",
            node="--target",
            hint="install qemu-user, or copy the emitted files to such a machine",
        )
    root = Path("/usr") / isa.toolchain.triple
    libraries = ("-L", str(root)) if root.exists() else ()
    return (emulator, *libraries, "-cpu", isa.toolchain.qemu_cpu)


def _node(isa: Isa) -> tuple[str, ...]:
    """Node, with a script that gives a program the system interface of WASI."""
    node = shutil.which("node")
    if node is None:
        raise MdlcError(
            f"running {isa.name} on this machine needs node",
            node="--target",
            hint="install nodejs, or copy the emitted files to where there is an engine",
        )
    script = resources.files("mdlc.runtime_templates").joinpath("wasi/run.mjs")
    return (node, "--no-warnings", str(script))


_EMULATORS = {"qemu": _qemu, "node": _node}


def program_words(command: str, where: str) -> tuple[str, ...]:
    """The words of a command that a user names.

    Args:
        where: the option or the variable, for messages.

    Raises:
        MdlcError: it cannot be read, or there is no such program.
    """
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise MdlcError(f"{command!r} is not a command ({error})", node=where) from None
    if not words:
        raise MdlcError("the command is empty", node=where)
    if shutil.which(words[0]) is None:
        raise MdlcError(
            f"there is no program {words[0]!r}", node=where, hint="check the name and PATH"
        )
    return words


@cache
def _declares(command: Sequence[str], header: str, function: str) -> bool:
    """Whether a compiler's header has a function that its older versions lack."""
    text = f"#include <{header}>\nauto* found = &{function};\n"
    check = [*command, "-x", "c++", "-fsyntax-only", "-"]
    done = subprocess.run(check, input=text, capture_output=True, text=True, check=False)
    return not function or done.returncode == 0


def _label(compiler: Sequence[str]) -> str:
    return "zig c++" if "ziglang" in compiler else Path(compiler[0]).name


def _compiler(isa: Isa, native: bool) -> tuple[str, ...]:
    key = "MDLC_CXX_" + isa.name.replace("-", "_").upper()
    for variable in (key, "MDLC_CXX", *(["CXX"] if native else [])):
        if os.environ.get(variable, "").strip():
            return program_words(os.environ[variable], variable)
    if native:
        for name in ("g++", "clang++", "c++"):
            if shutil.which(name):
                return (name,)
    elif shutil.which(f"{isa.toolchain.triple}-g++"):
        return (f"{isa.toolchain.triple}-g++", *isa.toolchain.required)
    elif shutil.which("clang++") and Path("/usr/lib", isa.toolchain.triple, "libc++.a").exists():
        command = ("clang++", f"--target={isa.toolchain.triple}", *isa.toolchain.required)
        if _declares(command, isa.toolchain.header, isa.toolchain.declares):
            return command
    if importlib.util.find_spec("ziglang"):
        command = (sys.executable, "-m", "ziglang", "c++")
        if native:
            return command
        # It takes from functions that ask for half precision what the command line does not name.
        target = ("-target", isa.toolchain.triple.replace("-gnu", "-musl"))
        return (*command, *target, *isa.toolchain.flags, *isa.toolchain.required, "-static")
    needed = "a C++ compiler (g++ or clang++)" if native else f"{isa.toolchain.triple}-g++"
    raise MdlcError(
        f"building for {isa.name} needs {needed}",
        hint="install it, or `pip install ziglang`, which contains one for every target",
    )
