"""Checks of the values in a description of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mdlc.compiler.errors import MdlcError, choose


def one_of(spec: object, key: str, known: Sequence[str | None]) -> None:
    """A field is one of these words; None: it may be left out.

    Raises:
        MdlcError: it is not.
    """
    value = getattr(spec, key.replace("-", "_"))
    if value not in known:
        raise MdlcError(
            f"there is no {key} {value!r}",
            node=f"[answer] {key}",
            hint=choose(str(value), [word for word in known if word is not None]),
        )


def between(spec: object, key: str, low: float, high: float) -> None:
    """A field is a number in these bounds.

    Raises:
        MdlcError: it is not.
    """
    value = getattr(spec, key.replace("-", "_"))
    if not low <= value <= high:
        raise MdlcError(
            f"{value:g} is out of range",
            node=f"[answer] {key}",
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
