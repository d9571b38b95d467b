"""What an option is: a field of a dataclass that knows its spelling on the command line.

The one entry serves three readers: the library (a keyword), the command line (a flag with its
help, in its group) and the emitted header (the words that give the value again).
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdlc.compiler.errors import MdlcError, choose


class Group(enum.Enum):
    """Options that concern the same; a command shows the groups that concern it, in this order."""

    TARGET = "Target"
    INPUT = "What the class takes"
    ANSWER = "What the class answers"
    CODE = "The class"
    FILES = "Files"
    WEIGHTS = "Weights"
    SCHEDULES = "Schedules"
    BUDGETS = "Budgets"
    PRECISION = "Precision and quantization"
    LABELS = "Labels of the calibration set"
    PASSES = "Looking inside"


@dataclass(frozen=True)
class Option:
    """An option of the command line.

    Attributes:
        flags: as written, -t and --target; of two, the last is what messages name.
        help: what it does, in a sentence or two.
        group: see Group.
        metavar: what stands behind the flag in the help.
        choices: all values, where they are few.
        bounds: the least and the largest number; None where there is none.
        number: int or float, for numbers.
        path: file, folder or any, for paths.
        repeated: whether it may be given several times.
        off: a flag that stands for the empty value, with its help.
        convert: makes the kept value of what a caller or the command line gives.
        shows: the words that give a value again; None: it does not change the result.
        always: shown even where the value is the default.
        nested: a dataclass of options that mean nothing without this one.
        common: one of the few that --help explains; --help-all explains all.
        written: a path that is written to.
    """

    flags: tuple[str, ...]
    help: str
    group: Group
    metavar: str | None = None
    choices: Sequence[str] = ()
    bounds: tuple[float, float | None] | None = None
    number: type[int] | type[float] | None = None
    path: str | None = None
    repeated: bool = False
    off: tuple[str, str] | None = None
    convert: Callable[[Any], Any] | None = None
    shows: Callable[[Any], list[str]] | None = None
    always: bool = False
    nested: type[Any] | None = None
    common: bool = False
    written: bool = False

    @property
    def brief(self) -> str:
        """The help's first clause."""
        return first_clause(self.help)

    @property
    def flag(self) -> str:
        """The long spelling."""
        return self.flags[-1]

    def checked(self, value: Any) -> Any:
        """A value as it is kept.

        Raises:
            MdlcError: it is none of the choices, or outside the bounds.
        """
        if value is None or self.nested is not None:
            return value
        if self.convert is not None:
            return self.convert(value)
        if self.choices and value not in self.choices:
            what = self.flag.strip("-").replace("-", " ")
            raise MdlcError(
                f"there is no {what} {value!r}",
                node=self.flag,
                hint=choose(str(value), self.choices),
            )
        if self.bounds is not None:
            low, high = self.bounds
            if not isinstance(value, int | float) or not (
                low <= value and (high is None or value <= high)
            ):
                allowed = f"from {low:g}" + ("" if high is None else f" to {high:g}")
                shown = f"{value:g}" if isinstance(value, int | float) else repr(value)
                raise MdlcError(
                    f"{shown} is out of range", node=self.flag, hint=f"choose a number {allowed}"
                )
        return Path(value) if self.path is not None else value


def first_clause(text: str) -> str:
    """A text up to what ends its first clause."""
    return re.split(r"[.;:](?:\s|$)", " ".join(text.split()), maxsplit=1)[0]


def option(
    default: Any, *flags: str, help: str, group: Group, hidden: bool = False, **rest: Any
) -> Any:
    """A field of a dataclass that is an option; see Option.

    Args:
        hidden: it does not change the result, so that no header shows it.
    """
    shows = None if hidden else rest.pop("shows", _shown(flags[-1]))
    found = Option(flags, help, group, shows=shows, **rest)
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata={"option": found})
    return dataclasses.field(default=default, metadata={"option": found})


def _shown(flag: str) -> Callable[[Any], list[str]]:
    def words(value: Any) -> list[str]:
        if value is True:
            return [flag]
        if isinstance(value, Path):
            value = value.name  # folders are of one machine alone
        return [flag, f"{value:g}" if isinstance(value, float) else str(value)]

    return words


def options_of(cls: type[Any]) -> Iterator[tuple[dataclasses.Field[Any], Option]]:
    """The options among the fields of a dataclass, in order."""
    for field in dataclasses.fields(cls):
        if "option" in field.metadata:
            yield field, field.metadata["option"]


def check_fields(options: Any) -> None:
    """For `__post_init__`: makes every field what is kept of it.

    Raises:
        MdlcError: a value that an option does not have.
    """
    for field, found in options_of(type(options)):
        object.__setattr__(options, field.name, found.checked(getattr(options, field.name)))


def words(options: Any) -> list[str]:
    """The words of the command line that give these options again, in order."""
    found: list[str] = []
    for field, entry in options_of(type(options)):
        value = getattr(options, field.name)
        plain = value is None or (not entry.always and value == field.default)
        if entry.shows is not None and not plain:
            found += entry.shows(value)
    return found


def keywords(cls: type[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords for a dataclass of options.

    Raises:
        TypeError: one is not known.
    """
    known = [field.name for field, _ in options_of(cls)]
    for name in given:
        if name not in known:
            raise TypeError(f"there is no option {name!r}; {choose(name, known)}")
    return dict(given)
