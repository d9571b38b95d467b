"""The instruction sets by name: every module of codegen/isa/ and its folders that defines ISA."""

from __future__ import annotations

import importlib
import pkgutil

from mdlc.codegen import isa as package
from mdlc.codegen.isa.base import Isa
from mdlc.codegen.isa.host import host_isa
from mdlc.compiler.errors import MdlcError


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
            f"unknown target {name!r}",
            node="--target",
            hint=f"choose one of {', '.join(known)}, host",
        )
    return known[name]
