"""Chains: two networks as one class, as a recipe describes them.

    name = "FaceMarks"

    [first]
    model = "yunet.onnx"
    answer = {decoder = "yunet"}

    [second]
    model = "pfld.onnx"
    recipe = "pfld.toml"

    [region]
    scale = 1.2

`first` and `second` have a model, a recipe of their own or its sections (`input`, `answer`), and a
name of their class. Files lie beside the recipe. See codegen/answer/region.py for the region.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mdlc.api import CompiledModel, Progress, compile
from mdlc.codegen.answer.checks import check_keys
from mdlc.codegen.answer.region import SECTION, Region
from mdlc.codegen.cpp.chain import Chain, emit_chain
from mdlc.compiler.errors import MdlcError, choose
from mdlc.naming import check_class_of_chain, checked_class_name, class_name
from mdlc.options import CompileOptions
from mdlc.output import write_files
from mdlc.recipe import SECTIONS, Recipe, read_recipe, read_tables, recipe_of

ROLES = ("first", "second")
_KEYS = ("model", "name", "recipe", *SECTIONS)
# What the class of the second network is called, by what it answers with.
_CALLED = {
    "classes": "Classifier",
    "keypoints": "Landmarks",
    "text": "Reader",
    "embedding": "Embedder",
    "boxes": "Parts",
    "quads": "Parts",
}


@dataclass(frozen=True)
class CompiledChain:
    """Two networks as one class; nothing of it is on disk yet.

    Attributes:
        chain: the plans. first, second: the networks as compiled. command: what made it.
    """

    chain: Chain
    first: CompiledModel
    second: CompiledModel
    command: str

    @property
    def name(self) -> str:
        """The emitted class."""
        return self.chain.name

    @cached_property
    def _files(self) -> dict[str, bytes]:
        return emit_chain(self.chain, (self.first.info, self.second.info), self.command)

    def files(self) -> dict[str, bytes]:
        """What is emitted: contents by file name, in a fixed order."""
        return dict(self._files)

    def write(self, directory: str | os.PathLike[str]) -> list[Path]:
        """Writes the files and returns their paths; none is ever half-written.

        Raises:
            MdlcError: the folder cannot be written to.
        """
        return write_files(Path(directory), self.files())


def compile_chain(
    recipe: str | os.PathLike[str],
    options: CompileOptions | str | None = None,
    *,
    progress: Progress | None = None,
    **keywords: Any,
) -> CompiledChain:
    """Compiles two networks, the second of which looks at what the first one finds, to one class.

    Args:
        recipe: a TOML file that describes them.
        options, keywords: options of both networks, see mdlc.compile; `name` is the whole class's.
        progress: called with a few words at the start of each stage.

    Raises:
        MdlcError: the recipe or an option is bad, or the networks do not fit each other.
    """
    path = Path(recipe)
    given = CompileOptions.of(options, keywords)
    tables = read_tables(path)
    known = ("name", *ROLES, "region")
    for key in tables:
        if key not in known:
            raise MdlcError(f"has no key {key!r}", node=str(path), hint=choose(key, known))
    found = {role: _network(tables.get(role), role, path) for role in ROLES}
    region = _region(tables.get("region", {}), path)
    name = given.name or tables.get("name") or class_name(path.stem)
    if not isinstance(name, str):
        raise MdlcError("is not a text", node=f"{path}: name", hint="name the class")
    name = check_class_of_chain(checked_class_name(name))
    for asked, flag, reason in (
        (given.embed_weights, "--embed-weights", "both networks' weights are in one file"),
        (given.profile, "--profile", "a class of two networks tells no layer's time yet"),
        (given.c_api, "--c-api", "a class of two networks has no interface for C yet"),
        ("," in given.target or len(given.found_targets()) > 1, "--target", "is for one target"),
    ):
        if asked:
            raise MdlcError(reason, node=flag, hint="leave it out, or give one")
    tell = progress or (lambda text: None)
    first, second = (_compiled(found[role], role, name, given, tell) for role in ROLES)
    if first.name.lower() == second.name.lower() or name in (first.name, second.name):
        raise MdlcError(
            f"two classes are called {second.name}",
            node=f"{path}: [second] name",
            hint="give each network a name of its own",
        )
    chain = Chain(name, first.plan, second.plan, region)
    try:
        chain.answers()  # which says what does not fit before anything is written
    except MdlcError as error:
        raise MdlcError(
            error.reason, node=f"{path}: {error.node or SECTION}", hint=error.hint
        ) from None
    words = ["mdlc", "pipeline", path.name, "--target", first.plan.isa.name]
    words += ["--threads", str(given.threads)] if given.threads > 1 else []
    return CompiledChain(chain, first, second, shlex.join(words))


@dataclass(frozen=True)
class _Network:
    model: Path
    name: str | None
    recipe: Recipe


def _network(table: Any, role: str, path: Path) -> _Network:
    """A network as its table describes it."""
    where = f"{path}: [{role}]"
    if not isinstance(table, Mapping):
        raise MdlcError("is missing", node=where, hint=f"write [{role}] and its model below it")
    for key in table:
        if key not in _KEYS:
            raise MdlcError(f"has no key {key!r}", node=where, hint=choose(key, _KEYS))
    for key in ("model", "name", "recipe"):
        if key in table and not isinstance(table[key], str):
            raise MdlcError(f"{table[key]!r} is not a text", node=f"{where} {key}")
    if "model" not in table:
        raise MdlcError("has no model", node=where, hint='write model = "FILE.onnx"')
    values: dict[str, Any] = {}
    if "recipe" in table:
        values |= read_recipe(path.parent / table["recipe"]).values
    own = {key: table[key] for key in SECTIONS if key in table}
    values |= recipe_of(own, str(path)).values
    name = table.get("name")
    return _Network(
        path.parent / table["model"],
        None if name is None else checked_class_name(name),
        Recipe(where, values),
    )


def _region(table: Any, path: Path) -> Region:
    if not isinstance(table, Mapping):
        raise MdlcError("is not a section", node=f"{path}: region", hint=f"write {SECTION}")
    values = {key.replace("-", "_"): value for key, value in table.items()}
    try:
        check_keys(Region, values, SECTION, "regions have")
        return Region(**values)
    except MdlcError as error:
        raise MdlcError(error.reason, node=f"{path}: {error.node}", hint=error.hint) from None


def _compiled(
    network: _Network, role: str, whole: str, given: CompileOptions, tell: Progress
) -> CompiledModel:
    """One of the networks, as part of the class."""
    asked = network.recipe.completing(replace(given, name=None))
    if asked.answer is None:
        raise MdlcError(
            "says not what the network answers with",
            node=network.recipe.source,
            hint=f"write [{role}.answer] and a kind or a decoder below it",
        )
    kind = asked.answer.kind if hasattr(asked.answer, "kind") else ""
    called = "Detector" if role == "first" else _CALLED.get(kind, "Second")
    asked = replace(asked, frame=True, name=network.name or whole + called)
    tell(f"{role} network")
    try:
        compiled = compile(network.model, asked, progress=tell)
    except MdlcError as error:
        where = f"{network.recipe.source} {error.node}" if error.node else network.recipe.source
        raise MdlcError(error.reason, node=where, hint=error.hint) from None
    plan = compiled.plan
    for bad, reason in (
        (bool(plan.states), "keeps a state, which the other network would overwrite"),
        (len(plan.inputs) > 1, "has several inputs"),
    ):
        if bad:
            raise MdlcError(reason, node=network.recipe.source, hint="choose another network")
    return replace(compiled, plan=replace(plan, part=whole))
