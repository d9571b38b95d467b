"""mdlc targets: what can be compiled for, and what each needs here."""

from __future__ import annotations

from pathlib import Path

import click

from mdlc.codegen.host import host_isa
from mdlc.codegen.isa import Isa, isas
from mdlc.codegen.toolchain import find_toolchain
from mdlc.commands.console import out, table
from mdlc.compiler.errors import MdlcError


@click.command("targets")
def command() -> None:
    """List the targets, and what each needs to be built and run on this machine.

    Compiling to C++ needs none of it.
    """
    known = isas()
    best = host_isa(known.values())
    shown = table("target", "what", "compiler flags", "built by", "run by")
    for isa in known.values():
        name = f"{isa.name} (host)" if isa is best else isa.name
        shown.add_row(name, isa.description, " ".join(isa.flags), *_needs(isa))
    out().print(shown)


def _needs(isa: Isa) -> tuple[str, str]:
    """What builds and what runs a target's programs here, or what is missing."""
    try:
        found = find_toolchain(isa)
    except MdlcError as error:
        return "", f"missing: {error.reason}"
    return found.name, Path(found.runner[0]).name if found.runner else "this machine"
