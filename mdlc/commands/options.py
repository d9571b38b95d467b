"""Options of `compile` as flags of the command line, in groups, and the call that they make."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, replace
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

import mdlc
from mdlc.codegen.target import SETS, targets
from mdlc.commands.console import progress
from mdlc.commands.quantization import tell_half_precision, write_quantization
from mdlc.compiler.errors import MdlcError
from mdlc.option import Group, Option, options_of
from mdlc.options import CompileOptions

Command = Callable[..., Any]
# What concerns every command that compiles and goes on with what came of it.
COMPILING = frozenset(Group) - {Group.FILES}


class TargetType(click.ParamType[str]):
    """The name of a target, completed by the shell."""

    name = "target"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The names that begin as typed."""
        return [CompletionItem(n) for n in (*targets(), "host", *SETS) if n.startswith(incomplete)]


class Grouped(click.Option):
    """An option that the help shows under the heading of its group."""

    def __init__(self, *args: Any, heading: str, **rest: Any) -> None:
        super().__init__(*args, **rest)
        self.heading = heading


class GroupedCommand(click.Command):
    """A command whose help has a section for each group of options, its own first."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the sections."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for group in Group:
            sections[group.value] = []
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Argument):
                continue
            record = parameter.get_help_record(ctx)
            if record is not None:
                heading = parameter.heading if isinstance(parameter, Grouped) else "Options"
                sections[heading].append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


@dataclass(frozen=True)
class Job:
    """What a command is asked to compile.

    Attributes:
        verbose: say what is being done.
        calibration_table, quantization_report: where these are written, if anywhere.
    """

    model: Path
    options: CompileOptions
    verbose: bool = False
    calibration_table: Path | None = None
    quantization_report: Path | None = None

    def changed(self, **options: Any) -> Job:
        """The same with other options."""
        return replace(self, options=replace(self.options, **options))

    def compile(self) -> mdlc.CompiledModel:
        """Calls the library, with progress on stderr; writes what quantization leaves."""
        with progress(self.verbose) as tell:
            compiled = mdlc.compile(self.model, self.options, progress=tell)
            write_quantization(compiled, self.calibration_table, self.quantization_report)
            tell_half_precision(compiled)
        return compiled


def takes_model(
    groups: Collection[Group] = COMPILING, argument: str = "model"
) -> Callable[[Command], Command]:
    """Adds MODEL and the options of these groups, which the command gets as `job`.

    Args:
        argument: what the file is called in the help, where it is no model.
    """
    shown = {entry.flag: (name, entry) for name, entry in _entries() if entry.group in groups}
    decorators: list[Callable[[Command], Command]] = [
        click.argument("model", metavar=argument.upper(), type=click.Path(path_type=Path))
    ]
    for name, entry in shown.values():
        decorators.append(_flag(name, entry))
        if entry.off is not None:
            flag, help = entry.off
            rest: dict[str, Any] = {"help": help, "cls": Grouped, "heading": entry.group.value}
            decorators.append(click.option(flag, f"no_{name}", is_flag=True, **rest))
    if Group.PRECISION in groups:
        decorators += _QUANTIZATION_FILES
    decorators.append(click.option("-v", "--verbose", is_flag=True, help="Say what is being done."))

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def gathered(model: Path, verbose: bool, **given: Any) -> Any:
            asked = {name: given.pop(name) for name, _ in shown.values()}
            for name, entry in shown.values():
                if entry.off is not None and given.pop(f"no_{name}"):
                    if asked[name]:
                        reason, hint = f"contradicts {entry.flag}", "give one of the two"
                        raise MdlcError(reason, node=entry.off[0], hint=hint)
                    asked[name] = _EMPTY
            files = {name: given.pop(name) for name in _FILE_NAMES if name in given}
            options = _options(asked, {n: f for n, f in files.items() if f is not None})
            return function(job=Job(model, options, verbose, **files), **given)

        command: Command = gathered
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def options_from(line: Sequence[str], folder: Path) -> CompileOptions:
    """The options that the words of an emitted header's command give.

    Args:
        folder: where the files lie that it names without their folders.

    Raises:
        MdlcError: a word is not known here.
    """
    found: list[CompileOptions] = []

    @click.command(context_settings={"help_option_names": []})
    @takes_model(frozenset(Group))
    def command(job: Job) -> None:
        found.append(job.options)

    words = [str(folder / w) if w and (folder / w).is_file() else w for w in line]
    try:
        command.main(args=["model", *words], standalone_mode=False)
    except click.ClickException as error:
        raise MdlcError(error.format_message(), hint="give the options themselves") from None
    return found[0]


_EMPTY = object()
_FILE_NAMES = ("calibration_table", "quantization_report")
_QUANTIZATION_FILES = (
    click.option(
        "--calibration-table",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Write the ranges here, to be read, edited and given to --calibrate.",
        cls=Grouped,
        heading=Group.PRECISION.value,
    ),
    click.option(
        "--quantization-report",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Write figures of every layer here, and a plot of the ranges.",
        cls=Grouped,
        heading=Group.PRECISION.value,
    ),
)


def _entries() -> Iterator[tuple[str, Option]]:
    """All options by the names of their fields, with those nested in others."""
    for field, entry in options_of(CompileOptions):
        yield field.name, entry
        if entry.nested is not None:
            yield from ((inner.name, option) for inner, option in options_of(entry.nested))


def _flag(name: str, entry: Option) -> Callable[[Command], Command]:
    """A flag of click's for an option; None, False or () stand for the default."""
    default = _defaults()[name]
    rest: dict[str, Any] = {"help": entry.help}
    if default is False:
        rest["is_flag"] = True
    elif name == "target":
        rest["type"] = TargetType()
    elif entry.choices:
        rest["type"] = click.Choice(list(entry.choices))
    elif entry.path is not None:
        rest["type"] = click.Path(
            path_type=Path, dir_okay=entry.path != "file", file_okay=entry.path != "folder"
        )
    elif entry.number is not None:
        rest["type"] = entry.number
    if default not in (None, False, ()):
        rest["help"] += f"  [default: {default}]"
    if entry.repeated:
        rest["multiple"] = True
    return click.option(
        *entry.flags, name, metavar=entry.metavar, cls=Grouped, heading=entry.group.value, **rest
    )


def _defaults() -> dict[str, Any]:
    every: dict[str, Any] = {}
    nested = (entry.nested for _, entry in options_of(CompileOptions))
    classes: list[type[Any]] = [CompileOptions, *(each for each in nested if each is not None)]
    for cls in classes:
        for field, _ in options_of(cls):
            every.setdefault(field.name, None if field.default is MISSING else field.default)
    return every


def _options(asked: Mapping[str, Any], files: Mapping[str, Path]) -> CompileOptions:
    """The options that the command line asks for.

    Raises:
        MdlcError: a value is bad, or an option is given without the one that it needs.
    """
    given = {n: v for n, v in asked.items() if v is not None and v is not False and v != ()}
    given = {name: () if value is _EMPTY else value for name, value in given.items()}
    for field, entry in options_of(CompileOptions):
        if entry.nested is None:
            continue
        inner = [(f, option) for f, option in options_of(entry.nested)]
        own = {f.name for f in fields(CompileOptions)}
        if field.name in given:
            _check_needed(inner, given, entry)
            chosen = {f.name: given.pop(f.name) for f, _ in inner if f.name in given}
            given[field.name] = entry.nested(**chosen)
            continue
        lone = [option.flag for f, option in inner if f.name in given and f.name not in own]
        lone += [f"--{name.replace('_', '-')}" for name in files]
        if lone:
            raise MdlcError(
                f"needs {entry.flag}",
                node=lone[0],
                hint=f"add {entry.flag} {entry.choices[0]}, or leave it out",
            )
    return CompileOptions(**given)


def _check_needed(
    inner: list[tuple[Field[Any], Option]], given: Mapping[str, Any], entry: Option
) -> None:
    for field, option in inner:
        if field.default is MISSING and field.name not in given:
            raise MdlcError(
                "8-bit integers need the ranges of all tensors",
                node=entry.flag,
                hint=f"give {option.flag} a folder of some 64 pictures, or an NPZ file",
            )
