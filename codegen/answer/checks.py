"""Checks of the values in a description of an answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mdlc.compiler.errors import MdlcError, choose


def one_of(spec: object, key: str, known: Sequence[str | None], section: str = "[answer]") -> None:
    """A field is one of these words; None: it may be left out.

    Raises:
        MdlcError: it is not.
    """
    value = getattr(spec, key.replace("-", "_"))
    if value not in known:
        raise MdlcError(
            f"there is no {key} {value!r}",
            node=f"{section} {key}",
            hint=choose(str(value), [word for word in known if word is not None]),
        )


def between(spec: object, key: str, low: float, high: float, section: str = "[answer]") -> None:
    """A field is a number in these bounds.

    Raises:
        MdlcError: it is not.
    """
    value = getattr(spec, key.replace("-", "_"))
    if not low <= value <= high:
        raise MdlcError(
            f"{value:g} is out of range",
            node=f"{section} {key}",
            hint=f"choose a number from {low:g} to {high:g}",
        )


def read_lines(path: Path, where: str) -> tuple[str, ...]:
    """The lines of a text file: a symbol, or the name of a class, each.

    Only line feeds part lines, with or without a carriage return before them, since a dictionary
    may hold other characters that break lines.

    Raises:
        MdlcError: the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise MdlcError(f"there is no file {path}", node=where, hint="check the path") from None
    except (OSError, UnicodeDecodeError):
        raise MdlcError(
            f"{path} is not a readable text file in UTF-8", node=where, hint="check the path"
        ) from None
    kept = lines if lines[-1] else lines[:-1]
    return tuple(line.rstrip("\r") for line in kept)


def check_keys(cls: type[Any], values: Mapping[str, Any], where: str, whose: str) -> None:
    """Values of a table are fields of a dataclass, and of their types.

    Args:
        values: by the names of fields. where: the section; whose: its keys are, as in "boxes have".

    Raises:
        MdlcError: one is not.
    """
    known = {field.name: field for field in dataclasses.fields(cls)}
    for name, value in values.items():
        key = name.replace("_", "-")
        if name not in known:
            raise MdlcError(
                f"{whose} no key {key!r}",
                node=where,
                hint=choose(key, [each.replace("_", "-") for each in known]),
            )
        _check_type(key, value, str(known[name].type), where)


def _check_type(key: str, value: Any, declared: str, where: str) -> None:
    """A value is of the type that a field declares."""
    words = {
        "str": isinstance(value, str),
        "bool": isinstance(value, bool),
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": isinstance(value, int | float) and not isinstance(value, bool),
        "Sequence[str]": _all(value, str),
        "Sequence[int]": _all(value, int),
        "Sequence[float]": _all(value, int, float),
        "None": value is None,
    }
    allowed = [word.strip() for word in declared.split("|")]
    if not any(words[word] for word in allowed):
        names = {
            "str": "a text",
            "bool": "true or false",
            "int": "a whole number",
            "float": "a number",
            "Sequence[str]": "a list of texts",
            "Sequence[int]": "a list of whole numbers",
            "Sequence[float]": "a list of numbers",
        }
        wanted = " or ".join(names[word] for word in allowed if word != "None")
        raise MdlcError(f"{value!r} is not {wanted}", node=f"{where} {key}", hint="correct it")


def _all(value: Any, *types: type) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(each, types) and not isinstance(each, bool) for each in value
    )
