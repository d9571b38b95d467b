"""mdlc targets: what can be compiled for, and what each needs here."""

from __future__ import annotations

import click

from mdlc.codegen.isa.base import Isa
from mdlc.codegen.isa.registry import cores_of
from mdlc.codegen.target import SETS, Target, file_endings, find_target, find_targets
from mdlc.codegen.target import targets as all_targets
from mdlc.commands.console import out, table
from mdlc.commands.options import TargetType
from mdlc.compiler.errors import MdlcError


@click.command("targets")
@click.option(
    "--files",
    "files",
    type=TargetType(),
    metavar="TARGET",
    help="Print only what the names of this target's headers and sources have behind the class's.",
)
@click.option(
    "--cores",
    "cores",
    type=TargetType(),
    metavar="TARGET",
    help="List the cores that --core takes for this target, and their figures.",
)
def command(files: str | None, cores: str | None) -> None:
    """List the targets, and what each needs to be built and run on this machine.

    Compiling to C++ needs none of it.
    """
    if files is not None:
        click.echo(" ".join(file_endings(find_targets(files))))
        return
    if cores is not None:
        _print_cores(find_target(cores))
        return
    best = find_target("host").name
    shown = table("target", "what", "built by", "run by")
    for known in all_targets().values():
        name = f"{known.name} (host)" if known.name == best else known.name
        shown.add_row(name, known.backend.description, *_needs(known))
    out().print(shown)
    for name, listed in SETS.items():
        out().print(f"{name}: {', '.join(listed)}", soft_wrap=True)


def _print_cores(target: Target) -> None:
    shown = table("core", "L1", "L2", "per cycle: started", "multiply-adds", "loads", "source")
    known = cores_of(target.backend) if isinstance(target.backend, Isa) else {}
    for core in known.values():
        shown.add_row(
            f"{core.name} (default)" if core.general else core.name,
            f"{core.l1_bytes >> 10} KiB",
            f"{core.l2_bytes >> 10} KiB",
            f"{core.issue_width:g}",
            f"{core.fma_per_cycle:g} of {8 * core.vector_bytes} bits",
            f"{core.loads_per_cycle:g}",
            core.source,
        )
    out().print(shown)


def _needs(target: Target) -> tuple[str, str]:
    """What builds and what runs a target's programs here, or what is missing."""
    try:
        return target.needs()
    except MdlcError as error:
        return "", f"missing: {error.reason}"
