"""mdlc targets: what can be compiled for, and what each needs here."""

from __future__ import annotations

import click

from mdlc.codegen.target import Target, find_target
from mdlc.codegen.target import targets as all_targets
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
        click.echo(" ".join(find_target(target).flags))
        return
    best = find_target("host").name
    shown = table("target", "what", "compiler flags", "built by", "run by")
    for known in all_targets().values():
        name = f"{known.name} (host)" if known.name == best else known.name
        shown.add_row(name, known.backend.description, " ".join(known.flags), *_needs(known))
    out().print(shown)


def _needs(target: Target) -> tuple[str, str]:
    """What builds and what runs a target's programs here, or what is missing."""
    try:
        return target.needs()
    except MdlcError as error:
        return "", f"missing: {error.reason}"
