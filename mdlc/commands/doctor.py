"""mdlc doctor: everything that stands in the way of a model, at once."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import fields
from pathlib import Path

import click

from mdlc.checks.doctor import Diagnosis, Finding, diagnose
from mdlc.commands.console import out
from mdlc.commands.options import GroupedCommand, Job, takes_model
from mdlc.commands.paths import Written
from mdlc.compiler.words import counted
from mdlc.option import Group
from mdlc.output import write_files

IN_THE_WAY = 2
_SHOWN_UNSEEN = 5


@click.command("doctor", cls=GroupedCommand, example="mdlc doctor model.onnx")
@takes_model({Group.INPUT, Group.TARGET})
@click.option(
    "--write-samples",
    "samples",
    type=Written(folder=True),
    metavar="DIR",
    help="Write the smallest model that shows each obstacle here.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(job: Job, samples: Path | None, as_json: bool) -> None:
    """Say everything that keeps MODEL from being compiled, at once.

    Each obstacle comes with its node, what in the model causes it and what to do. Exit code 0
    where nothing stands in the way, 2 where something does.
    """
    found = diagnose(job.model, job.options, samples=samples is not None)
    files = _samples(found) if samples is not None else {}
    if samples is not None and files:
        write_files(samples, {name: data for name, data in files.values()})
    paths = {number: str(samples / name) for number, (name, _) in files.items()} if samples else {}
    if as_json:
        click.echo(json.dumps(_as_json(found, paths), indent=2))
    else:
        _print(found, paths)
    if found.findings:
        raise click.exceptions.Exit(IN_THE_WAY)


def _samples(found: Diagnosis) -> dict[int, tuple[str, bytes]]:
    """File name and contents of the samples by the number of the finding."""
    return {
        number: (
            f"{number:02}_{each.kind}_{_file_word(each.where)}.onnx",
            each.sample.SerializeToString(deterministic=True),
        )
        for number, each in enumerate(found.findings, 1)
        if each.sample is not None
    }


def _as_json(found: Diagnosis, paths: dict[int, str]) -> dict[str, object]:
    shown = [field.name for field in fields(Finding) if field.name != "sample"]
    return {
        "obstacles": [
            {**{name: getattr(each, name) for name in shown}, "sample": paths.get(number)}
            for number, each in enumerate(found.findings, 1)
        ],
        "unseen": list(found.unseen),
        "assumed": list(found.assumed),
    }


def _print(found: Diagnosis, paths: dict[int, str]) -> None:
    console = out()

    def line(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    for number, each in enumerate(found.findings, 1):
        line(f"{number}. {each.where or 'model'}: {each.reason}")
        if each.cause:
            line(f"   why: {each.cause}")
        if each.hint:
            line(f"   do: {each.hint}")
        if number in paths:
            line(f"   sample: {paths[number]}")
    if found.assumed:
        line(f"gone on with --shape {' --shape '.join(found.assumed)}")
    if found.unseen:
        listed = ", ".join(found.unseen[:_SHOWN_UNSEEN])
        more = ", ..." if len(found.unseen) > _SHOWN_UNSEEN else ""
        line(f"not looked at, behind these: {len(found.unseen)} nodes ({listed}{more})")
    counts = Counter(each.kind for each in found.findings)
    if not counts:
        line("nothing stands in the way")
        return
    listed = ", ".join(counted(count, kind) for kind, count in sorted(counts.items()))
    line(f"{counted(len(found.findings), 'obstacle')}: {listed}")


def _file_word(text: str) -> str:
    """What of a text may stand in a file's name."""
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")[:60] or "model"
