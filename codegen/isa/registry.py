"""Instruction sets and cores by name: every module of isa/ that defines ISA, and isa/cores.py."""

from __future__ import annotations

import importlib
import pkgutil

from mdlc.codegen import isa as package
from mdlc.codegen.isa.base import Isa
from mdlc.codegen.isa.cores import CORES, Core
from mdlc.codegen.isa.host import host_isa
from mdlc.compiler.errors import MdlcError, choose


def isas() -> dict[str, Isa]:
    """All instruction sets by target name, in the order of their files."""
    found: dict[str, Isa] = {}
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if module.name != __name__:
            isa = getattr(importlib.import_module(module.name), "ISA", None)
            if isa is not None:
                found[isa.name] = isa
    return found


def find_isa(name: str) -> Isa:
    """The ISA of a target name; `host` is the best that this machine runs.

    Raises:
        MdlcError: there is no such target.
    """
    known = isas()
    if name == "host":
        return host_isa(known.values())
    if name not in known:
        raise MdlcError(
            f"there is no target {name!r}",
            node="--target",
            hint=choose(name, (*known, "host")),
        )
    return known[name]


def cores_of(isa: Isa) -> dict[str, Core]:
    """The cores that execute an instruction set, by name; the one it is for in general first."""
    found = (
        core
        for core in CORES
        if (not isa.toolchain.triple or isa.toolchain.triple.startswith(core.machine))
        and isa.toolchain.cpu_flags <= core.cpu_flags
    )
    return {core.name: core for core in (isa.core, *found)}


def find_core(isa: Isa, name: str) -> Core:
    """The core of a name.

    Raises:
        MdlcError: there is no such core that executes the instruction set.
    """
    known = cores_of(isa)
    if name not in known:
        lacks = any(core.name == name for core in CORES)
        raise MdlcError(
            f"core {name} lacks {isa.description}" if lacks else f"unknown core {name!r}",
            node="--core",
            hint=f"for target {isa.name}, choose one of {', '.join(known)}",
        )
    return known[name]
