"""How values of options are written: texts of the command line, and the words that give them again.

Callers of the library may give either the texts or the values; both become the same.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mdlc.compiler.errors import MdlcError
from mdlc.inputs.preprocess import parse_numbers
from mdlc.pipeline import left_out

Numbers = str | float | Sequence[float] | None
Fixed = dict[str, float | Sequence[float]]
Tables = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None


def parse_fixed(given: Mapping[str, float | Sequence[float]] | Sequence[str]) -> Fixed:
    """Values of inputs by name, also from texts such as sr=16000.

    Raises:
        MdlcError: one is not of that form.
    """
    if isinstance(given, Mapping):
        return dict(given)
    fixed: Fixed = {}
    for text in given:
        name, _, values = text.rpartition("=")
        try:
            numbers = tuple(_number(word) for word in values.split(","))
        except ValueError:
            numbers = ()
        if not name or not numbers:
            raise MdlcError(f"{text!r} is not a value", node="--fix", hint="write --fix sr=16000")
        fixed[name] = numbers[0] if len(numbers) == 1 else numbers
    return fixed


def parse_states(given: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    """Inputs by the outputs that they become, also from texts such as stateN=state.

    Raises:
        MdlcError: one is not of that form, or names an output again.
    """
    pairs = list(given.items()) if isinstance(given, Mapping) else []
    for text in () if isinstance(given, Mapping) else given:
        result, _, name = text.rpartition("=")
        if not result or not name:
            raise MdlcError(f"{text!r} is not a state", node="--state",
                            hint="write --state OUTPUT=INPUT")  # fmt: skip
        pairs.append((result, name))
    twice = [result for result, count in Counter(r for r, _ in pairs).items() if count > 1]
    if twice:
        raise MdlcError(f"names the output {twice[0]!r} twice", node="--state",
                        hint="give every output one input")  # fmt: skip
    return dict(pairs)


def state_words(states: Mapping[str, str]) -> list[str]:
    """The words that give states."""
    return [w for pair in states.items() for w in ("--state", "=".join(pair))]


def _number(word: str) -> float:
    try:
        return int(word)
    except ValueError:
        return float(word)


def fixed_words(fixed: Fixed) -> list[str]:
    """The words that give values of inputs."""
    found: list[str] = []
    for name, value in sorted(fixed.items()):
        values = value if isinstance(value, Sequence) else (value,)
        found += ["--fix", f"{name}={','.join(map(str, values))}"]
    return found


def parse_bounds(given: Mapping[str, int] | Sequence[str]) -> dict[str, int]:
    """Bounds by tensor name, also from texts such as selected=100.

    Raises:
        MdlcError: one is not of that form.
    """
    texts = [f"{n}={b}" for n, b in given.items()] if isinstance(given, Mapping) else given
    bounds: dict[str, int] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        if not name or not number.isdecimal() or int(number) < 1:
            raise MdlcError(f"{text!r} is not a bound", node="--bound",
                            hint="write --bound selected=100")  # fmt: skip
        bounds[name] = int(number)
    return bounds


def bound_words(bounds: Mapping[str, int]) -> list[str]:
    """The words that give bounds."""
    return [w for name, n in sorted(bounds.items()) for w in ("--bound", f"{name}={n}")]


def parse_names(given: str | Sequence[str]) -> tuple[str, ...]:
    """One name, or several."""
    return (given,) if isinstance(given, str) else tuple(given)


def parse_passes(given: str | Sequence[str]) -> str:
    """A choice of passes as it is kept: all, none, or the names left out in order."""
    found = left_out(given)
    if not found:
        return "all"
    everything = left_out("none")
    return "none" if found == everything else ",".join(f"-{name}" for name in sorted(found))


def parse_paths(given: Tables) -> tuple[Path, ...]:
    """One path, or several."""
    assert given is not None
    return tuple(Path(p) for p in ([given] if isinstance(given, str | os.PathLike) else given))


def table_words(paths: Sequence[Path]) -> list[str]:
    """The words that give tables of schedules, without their folders."""
    return [word for path in paths for word in ("--tuned", path.name)] or ["--no-tuned"]


def as_numbers(flag: str) -> dict[str, Any]:
    """How an option of numbers between commas is kept and shown."""

    def shows(values: Sequence[float]) -> list[str]:
        return [f"{flag}={','.join(f'{value:g}' for value in values)}"] if values else []

    return {"convert": lambda given: parse_numbers(given, flag), "shows": shows}
