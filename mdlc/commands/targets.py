"""mdlc targets: what can be compiled for, and what each needs here."""

from __future__ import annotations

import click

from mdlc.codegen.isa.base import Isa
from mdlc.codegen.isa.registry import cores_of
from mdlc.codegen.target import SETS, Target, file_endings, find_target, find_targets
from mdlc.codegen.target import targets as all_targets
from mdlc.commands.options import GroupedCommand, TargetType
from mdlc.commands.tables import Column, Form, Sheet, number, prints_table
from mdlc.compiler.errors import MdlcError

COLUMNS = (
    Column("target", "target"),
    Column("description", "what", least=20, rank=1),
    Column("built_by", "built by", least=8),
    Column("run_by", "run by", least=10),
)
CORES = (
    Column("core", "core"),
    number("l1_bytes", "L1", lambda value: f"{value >> 10} KiB", rank=3),
    number("l2_bytes", "L2", lambda value: f"{value >> 10} KiB", rank=3),
    number("issue_width", "starts", lambda value: f"{value:g}"),
    number("fma_per_cycle", "multiply-adds", lambda value: f"{value:g}"),
    number("vector_bytes", "of bits", lambda value: str(8 * value)),
    number("loads_per_cycle", "loads", lambda value: f"{value:g}"),
    Column("source", "source", least=10, rank=4),
)


@click.command("targets", cls=GroupedCommand, example="mdlc targets")
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
@prints_table()
def command(files: str | None, cores: str | None, form: Form) -> None:
    """List the targets, and what each needs to be built and run on this machine.

    Compiling to C++ needs none of it.
    """
    if files is not None:
        click.echo(" ".join(file_endings(find_targets(files))))
        return
    table = _cores(find_target(cores, "--cores")) if cores is not None else _targets()
    form.show(table)
    if cores is not None:
        form.line("starts, multiply-adds and loads are those of a cycle")
        form.document(form.sorted(table))
        return
    for name, listed in SETS.items():
        form.line(f"{name}: {', '.join(listed)}")
    form.document({"targets": form.sorted(table), "sets": {n: list(t) for n, t in SETS.items()}})


def _targets() -> Sheet:
    best = find_target("host").name
    rows = []
    for known in all_targets().values():
        name = f"{known.name} (host)" if known.name == best else known.name
        built, run = _needs(known)
        rows.append(
            {"target": name, "description": known.backend.description, "built_by": built,
             "run_by": run}
        )  # fmt: skip
    return Sheet(COLUMNS, rows)


def _cores(target: Target) -> Sheet:
    known = cores_of(target.backend) if isinstance(target.backend, Isa) else {}
    return Sheet(
        CORES,
        [
            {
                "core": f"{core.name} (default)" if core.general else core.name,
                "l1_bytes": core.l1_bytes,
                "l2_bytes": core.l2_bytes,
                "issue_width": core.issue_width,
                "fma_per_cycle": core.fma_per_cycle,
                "vector_bytes": core.vector_bytes,
                "loads_per_cycle": core.loads_per_cycle,
                "source": core.source,
            }
            for core in known.values()
        ],
    )


def _needs(target: Target) -> tuple[str, str]:
    """What builds and what runs a target's programs here, or what is missing."""
    try:
        return target.needs()
    except MdlcError as error:
        return "", f"missing: {error.reason}"
