"""A class for several targets in commands that build it: one variant after the other."""

from __future__ import annotations

from collections.abc import Iterator

from mdlc.api import CompiledModel
from mdlc.codegen.target import target_of
from mdlc.commands.console import err, out
from mdlc.commands.options import Job
from mdlc.compiler.errors import MdlcError


def runnable(compiled: CompiledModel, *, quiet: bool = False) -> Iterator[CompiledModel]:
    """The variants that something here runs, each under its name unless `quiet`; others are named.

    Raises:
        MdlcError: there is nothing here that runs any of them.
    """
    variants = compiled.by_target()
    reasons = []
    for each in variants:
        name = each.plan.backend.name
        if len(variants) > 1:
            try:
                target_of(each.plan).needs()
            except MdlcError as error:
                reasons.append(error)
                err().print(f"mdlc: {name} is left out: {error.reason}", soft_wrap=True)
                continue
            if not quiet:
                out().print(f"target {name}:")
        yield each
    if len(reasons) == len(variants):
        raise reasons[0]


def single(job: Job, command: str) -> None:
    """Refuses several targets where a command works for one.

    Raises:
        MdlcError: the options name several.
    """
    found = job.options.found_targets()
    if len(found) > 1:
        raise MdlcError(
            f"`mdlc {command}` works for one target at a time",
            node="--target",
            hint=f"choose one of {', '.join(target.name for target in found)}",
        )
