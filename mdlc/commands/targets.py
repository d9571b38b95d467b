"""mdlc targets: what can be compiled for, and what each needs here."""

from __future__ import annotations

from pathlib import Path

import click

from mdlc.codegen.host import host_isa
from mdlc.codegen.isa import Isa, find_isa, isas
from mdlc.codegen.toolchain import find_toolchain
from mdlc.commands.console import out, table
from mdlc.commands.options import TargetType
from mdlc.compiler.errors import MdlcError


@click.command("targets")
@click.option(
    "--flags",
    "target",
    type=TargetType(),
    metavar="TARGET",
    help="Print only the compiler flags that this target's files need.",
)
def command(target: str | None) -> None:
    """List the targets, and what each needs to be built and run on this machine.

    Compiling to C++ needs none of it.
    """
    if target is not None:
        click.echo(" ".join(find_isa(target).flags))
        return
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
