"""Recipes: what stands around a network, kept in a TOML file or in the model's own metadata.

A recipe says once, where it is reviewed, what would otherwise stand in every command line: how
pictures become the network's input. Its keys are the options of the command line without their
dashes, each in the section of its group:

    [input]
    frame = true
    fit = "letterbox"
    mean = [123.7, 116.3, 103.5]

An option that is given goes before the recipe's file, and the file before the model's metadata
(the same text under the key `mdlc.recipe`). A section is an entry of SECTIONS.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from mdlc.answers import FILES, as_answer
from mdlc.codegen.answer.answer import Answer
from mdlc.compiler.errors import MdlcError, choose
from mdlc.option import Group, Option, options_of
from mdlc.options import CompileOptions

# Sections by name, with the options that may stand in each.
ANSWER = "answer"
SECTIONS: Mapping[str, Group] = {"input": Group.INPUT, ANSWER: Group.ANSWER}
# The model that a recipe is for, where a command is given the recipe alone.
MODEL = "model"
METADATA_KEY = "mdlc.recipe"
_THE_FILE = "recipe"  # the option that names the file cannot stand in it


@dataclass(frozen=True)
class Recipe:
    """Options as a recipe gives them.

    Attributes:
        source: the file, or the model's metadata, for messages.
        values: what it says, by field of CompileOptions, checked.
    """

    source: str
    values: Mapping[str, Any]

    def completing(self, options: CompileOptions) -> CompileOptions:
        """The options, with the recipe's where nothing was given.

        Raises:
            MdlcError: two of them contradict each other.
        """
        missing = {n: v for n, v in self.values.items() if getattr(options, n) in (None, False)}
        return replace(options, **missing)


def completed(options: CompileOptions, model: onnx.ModelProto) -> CompileOptions:
    """Options completed by the recipe that they name, and by the model's own.

    Raises:
        MdlcError: a recipe cannot be read, or says what no option says.
    """
    if options.recipe is not None:
        options = read_recipe(Path(options.recipe)).completing(options)
    found = model_recipe(model)
    options = options if found is None else found.completing(options)
    options.check_complete()
    return options


def read_recipe(path: Path) -> Recipe:
    """The recipe in a file.

    Raises:
        MdlcError: it cannot be read, is not TOML, or has a section, key or value there is not.
    """
    return recipe_of(read_tables(path), str(path))


def read_tables(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        MdlcError: it cannot be read or is not TOML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MdlcError("there is no such file", node=str(path), hint="check the path") from None
    except (OSError, UnicodeDecodeError):
        raise MdlcError("is not a readable text file", node=str(path)) from None
    return _tables(text, str(path))


def model_recipe(model: onnx.ModelProto) -> Recipe | None:
    """The recipe in a model's metadata, where it carries one.

    Raises:
        MdlcError: see read_recipe.
    """
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            return parse_recipe(entry.value, f"the model's metadata {METADATA_KEY}")
    return None


def parse_recipe(text: str, source: str) -> Recipe:
    """The recipe of a TOML text.

    Args:
        source: where the text is from, for messages.

    Raises:
        MdlcError: see read_recipe.
    """
    return recipe_of(_tables(text, source), source)


def _tables(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        reason = str(error)
        raise MdlcError(
            f"is not TOML: {reason[:1].lower()}{reason[1:]}", node=source, hint="correct the line"
        ) from None


def recipe_of(tables: Mapping[str, Any], source: str) -> Recipe:
    """The recipe of the sections of a TOML text; see parse_recipe."""
    values: dict[str, Any] = {}
    for section, table in tables.items():
        if section == MODEL and isinstance(table, str):
            continue
        if section not in SECTIONS:
            raise MdlcError(
                f"there is no section [{section}]", node=source, hint=choose(section, SECTIONS)
            )
        if section == ANSWER:
            values[ANSWER] = _answer(table, source)
            continue
        if not isinstance(table, dict):
            raise MdlcError(
                f"{section} is not a section",
                node=source,
                hint=f"write [{section}] on its own line",
            )
        known = {entry.flag.lstrip("-"): (name, entry) for name, entry in _entries(section)}
        for key, value in table.items():
            if key not in known:
                raise MdlcError(
                    f"[{section}] has no key {key!r}", node=source, hint=choose(key, known)
                )
            name, entry = known[key]
            values[name] = _checked(entry, value, f"{source}: [{section}] {key}")
    return Recipe(source, values)


def _answer(table: Any, source: str) -> Answer:
    """The section [answer], whose keys are those of its kind and no options."""
    if not isinstance(table, dict):
        raise MdlcError("answer is not a section", node=source, hint="write [answer]")
    # Files that a recipe names lie beside it.
    beside = {
        key: str(Path(source).parent / value)
        for key, value in table.items()
        if key in FILES and isinstance(value, str)
    }
    try:
        return as_answer({**table, **beside})
    except MdlcError as error:
        raise MdlcError(
            error.reason, node=f"{source}: {error.node or '[answer]'}", hint=error.hint
        ) from None


def _entries(section: str) -> Iterator[tuple[str, Option]]:
    for field, entry in options_of(CompileOptions):
        if entry.group is SECTIONS[section] and field.name != _THE_FILE:
            yield field.name, entry


def _checked(entry: Option, value: Any, where: str) -> Any:
    """A value as the option keeps it."""
    is_flag = entry.convert is None and not entry.choices and entry.metavar is None
    if is_flag != isinstance(value, bool):
        raise MdlcError(
            f"{value!r} is not {'true or false' if is_flag else 'a value of it'}",
            node=where,
            hint=entry.help.split(".")[0],
        )
    if entry.repeated and isinstance(value, str):
        value = [value]
    try:
        return entry.checked(value)
    except MdlcError as error:
        raise MdlcError(error.reason, node=where, hint=error.hint) from None
    except (TypeError, ValueError, AttributeError):
        raise MdlcError(
            f"{value!r} is not a value of it", node=where, hint=entry.help.split(".")[0]
        ) from None
