"""Checks of the values in a description of an answer."""

from __future__ import annotations

from collections.abc import Sequence

from mdlc.compiler.errors import MdlcError, choose


def one_of(spec: object, key: str, known: Sequence[str]) -> None:
    """A field is one of these words.

    Raises:
        MdlcError: it is not.
    """
    value = getattr(spec, key.replace("-", "_"))
    if value not in known:
        raise MdlcError(
            f"there is no {key} {value!r}",
            node=f"[answer] {key}",
            hint=choose(str(value), list(known)),
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
