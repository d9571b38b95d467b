"""mdlc package: the class as a package for an ecosystem's own tool."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import click

from mdlc.commands.console import out
from mdlc.commands.options import GroupedCommand, Job, takes_model
from mdlc.commands.paths import Written
from mdlc.compiler.errors import MdlcError
from mdlc.option import Group
from mdlc.options import CompileOptions
from mdlc.package.kind import Kind, find_kind, kinds
from mdlc.package.write import write_package
from mdlc.recipe import read_recipe


def _kinds() -> str:
    return "".join(f"\b\n{name:<8}{kind.summary}\n" for name, kind in kinds().items())


@click.command(
    "package",
    cls=GroupedCommand,
    example="mdlc package cmake model.onnx -o app/model",
    help=f"""Compile MODEL to a package of KIND: text that the ecosystem's own tool builds.

{_kinds()}
MODEL may also be a recipe (.toml) that names its model: model = "detector.onnx".
""",
)
@click.argument("kind", metavar="KIND")
@takes_model(frozenset(Group) - {Group.PASSES})
@click.option(
    "-o",
    "--output",
    type=Written(folder=True),
    required=True,
    metavar="DIR",
    help="Folder for the package; made where missing.",
)
def command(kind: str, job: Job, output: Path) -> None:
    """See above."""
    found = find_kind(kind)
    compiled = _job(job, found).compile()
    paths = write_package(kind, compiled, output)
    console = out()
    console.print(f"{compiled.name}: {len(paths)} files in {output}, {found.summary}")
    console.print(f"next, in {output}:")
    for line in found.lines(compiled):
        console.print(f"  {line}", soft_wrap=True, markup=False, highlight=False)


def _job(job: Job, kind: Kind) -> Job:
    """The job with what the package is built on."""
    changes = dict(kind.fixed)
    recipe = job.options.recipe or (job.model if job.model.suffix == ".toml" else None)
    if job.options.target == CompileOptions.target:  # none was asked for
        framed = job.options.frame or (
            recipe is not None and read_recipe(Path(recipe)).values.get("frame")
        )
        changes["target"] = (kind.framed if framed else None) or kind.target
    if job.model.suffix == ".toml":
        changes["recipe"] = recipe
        job = replace(job, model=_model_of(job.model))
    return job.changed(**changes)


def _model_of(recipe: Path) -> Path:
    """The model that a recipe names.

    Raises:
        MdlcError: it names none, or cannot be read.
    """
    try:
        named = tomllib.loads(recipe.read_text(encoding="utf-8")).get("model")
    except FileNotFoundError:
        raise MdlcError("there is no such file", node=str(recipe), hint="check the path") from None
    except (OSError, ValueError):
        named = None
    if not isinstance(named, str):
        raise MdlcError(
            "names no model", node=str(recipe), hint='write model = "FILE.onnx" in its first line'
        )
    return recipe.parent / named
