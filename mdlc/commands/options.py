"""Options of `compile` as flags of the command line, in groups, and the call that they make."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, replace
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

import mdlc
from mdlc.codegen.target import SETS, targets
from mdlc.commands.console import err, progress
from mdlc.commands.paths import Written
from mdlc.commands.quantization import tell_half_precision, write_quantization
from mdlc.compiler.errors import MdlcError
from mdlc.option import Group, Option, first_clause, options_of
from mdlc.options import CompileOptions
from mdlc.precision.calibration_set import check_set
from mdlc.reports.page import INSTALL, can_draw

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

    def __init__(self, *args: Any, heading: str, common: bool = False, **rest: Any) -> None:
        super().__init__(*args, **rest)
        self.heading, self.common = heading, common


class GroupedCommand(click.Command):
    """A command whose --help is one screen: an example, what it does, its own options, and the
    names of those that it shares with `compile` in groups; --help-all explains all.

    Args:
        example: a command line.
        whole: it explains the common ones of the shared options, too.
    """

    def __init__(self, *args: Any, example: str = "", whole: bool = False, **rest: Any) -> None:
        super().__init__(*args, **rest)
        self.example, self.whole = example or f"mdlc {self.name} model.onnx", whole
        shared = any(isinstance(parameter, Grouped) for parameter in self.params)
        if shared:
            self.params.append(
                click.Option(
                    ["--help-all"],
                    is_flag=True,
                    is_eager=True,
                    expose_value=False,
                    callback=_help_all,
                    help="Explain all options and exit.",
                )
            )

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the screen, or with --help-all everything."""
        everything = bool(ctx.meta.get(_EVERYTHING))
        self.format_usage(ctx, formatter)
        formatter.write_paragraph()
        formatter.write_text(f"Example: {self.example}")
        formatter.write_paragraph()
        paragraphs = inspect.cleandoc(self.help or "").split("\n\n")
        for index, paragraph in enumerate(paragraphs):
            if paragraph.startswith("\b"):  # lines as they are: what an argument may be
                formatter.write("\n" + "".join(f"  {x}\n" for x in paragraph.split("\n")[1:]))
                continue
            if not everything and index:
                continue
            formatter.write_text(" ".join(paragraph.split()))
            if everything:
                formatter.write_paragraph()
        sections: dict[str, list[tuple[click.Parameter, tuple[str, str]]]] = {"Options": []}
        for group in Group:
            sections[group.value] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                heading = parameter.heading if isinstance(parameter, Grouped) else "Options"
                sections[heading].append((parameter, record))
        if everything:
            for heading, found in sections.items():
                if found:
                    with formatter.section(heading):
                        formatter.write_dl([record for _, record in found])
            return
        own = [record for _, record in sections.pop("Options")]
        if any(sections.values()):
            own = [(flags, _short(text)) for flags, text in own]
        if self.whole:
            common = [(p, r) for found in sections.values() for p, r in found if _common(p)]
            own = [(record[0], first_clause(record[1])) for _, record in common] + own
        with formatter.section("Options"):
            formatter.write_dl(own)
        shared = [
            (heading, " ".join(names).replace("-", _NO_BREAK))
            for heading, found in sections.items()
            if (names := [p.opts[-1] for p, _ in found if not (self.whole and _common(p))])
        ]
        if shared:
            which = "More options" if self.whole else "Options of compile"
            with formatter.section(f"{which} (--help-all explains them)"):
                formatter.write_dl(shared)
        formatter.buffer = [text.replace(_NO_BREAK, "-") for text in formatter.buffer]


_NO_BREAK = "\N{NON-BREAKING HYPHEN}"  # where no line is broken
_EVERYTHING = "mdlc.help-all"


def _help_all(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    """Shows all that there is to say."""
    if value and not ctx.resilient_parsing:
        ctx.meta[_EVERYTHING] = True
        click.echo(ctx.get_help())
        ctx.exit()


def _short(text: str) -> str:
    """The first clause of a help, and the default."""
    _, bracket, default = text.rpartition("  [default: ")
    brief = first_clause(text)
    return f"{brief}  [default: {default.split(';')[0].rstrip(']')}]" if bracket else brief


def _common(parameter: click.Parameter) -> bool:
    return isinstance(parameter, Grouped) and parameter.common


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
        """Calls the library, with progress on stderr; writes what quantization leaves.

        Raises:
            MdlcError: something stands in the way; what can be told before the work, is.
        """
        for source in self._sets():
            check_set(source, "--calibrate")
        quantize = self.options.quantize
        if self.quantization_report is not None and quantize is not None:
            if quantize.from_table:
                raise MdlcError(
                    "a report needs inputs to measure on",
                    node="--quantization-report",
                    hint="give --calibrate the pictures instead of a table",
                )
            if not can_draw():
                err().print(f"mdlc: layers.html will have no charts: {INSTALL} has what draws them")
        with progress(self.verbose) as tell:
            compiled = mdlc.compile(self.model, self.options, progress=tell)
            write_quantization(compiled, self.calibration_table, self.quantization_report)
            tell_half_precision(compiled)
        return compiled

    def _sets(self) -> Iterator[Path]:
        """Folders of pictures that compiling reads."""
        quantize = self.options.quantize
        asked = self.options.calibrate if quantize is None else quantize.path
        if asked is not None and Path(asked).is_dir():
            yield Path(asked)


def takes_model(
    groups: Collection[Group] = COMPILING, argument: str = "model", *, optional: bool = False
) -> Callable[[Command], Command]:
    """Adds MODEL and the options of these groups, which the command gets as `job`.

    Args:
        argument: what the file is called in the help, where it is no model.
        optional: it may be left out; `job` is None then.
    """
    shown = {entry.flag: (name, entry) for name, entry in _entries() if entry.group in groups}
    path = click.Path(path_type=Path)
    decorators: list[Callable[[Command], Command]] = [
        click.argument("model", metavar=argument.upper(), type=path, required=not optional)
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
        def gathered(model: Path | None, verbose: bool, **given: Any) -> Any:
            asked = {name: given.pop(name) for name, _ in shown.values()}
            for name, entry in shown.values():
                if entry.off is not None and given.pop(f"no_{name}"):
                    if asked[name]:
                        reason, hint = f"contradicts {entry.flag}", "give one of the two"
                        raise MdlcError(reason, node=entry.off[0], hint=hint)
                    asked[name] = _EMPTY
            files = {name: given.pop(name) for name in _FILE_NAMES if name in given}
            options = _options(asked, {n: f for n, f in files.items() if f is not None})
            job = None if model is None else Job(model, options, verbose, **files)
            return function(job=job, **given)

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
        type=Written(),
        metavar="FILE",
        help="Write the ranges here, to be read, edited and given to --calibrate.",
        cls=Grouped,
        heading=Group.PRECISION.value,
    ),
    click.option(
        "--quantization-report",
        type=Written(folder=True),
        metavar="DIR",
        help="Write figures of every layer here, and plots of the ranges.",
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
    elif entry.written:
        rest["type"] = Written(folder=entry.path == "folder")
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
        *entry.flags,
        name,
        metavar=entry.metavar,
        cls=Grouped,
        heading=entry.group.value,
        common=entry.common,
        **rest,
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
