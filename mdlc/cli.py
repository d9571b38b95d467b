"""The command line: `mdlc MODEL ...` compiles; the other commands are mdlc/commands/."""

from __future__ import annotations

import difflib
import os
import sys
import traceback
from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem

from mdlc.commands import (
    accuracy,
    bench,
    bisect,
    bug_report,
    compile,
    compress,
    demo,
    doctor,
    explain,
    inspect,
    package,
    pipeline,
    report,
    run,
    targets,
    tune,
    verify,
)
from mdlc.compiler.errors import MdlcError
from mdlc.version import __version__

BAD_INPUT = 2
BUG = 3
DEBUG = "MDLC_DEBUG"


class DefaultGroup(click.Group):
    """A group whose first argument, where it names no command, is a model to compile."""

    default = "compile"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Puts the default command in front where none is named."""
        if args[:1] == ["--version"] and args[1:] in (["-v"], ["--verbose"]):
            from mdlc.environment import environment

            click.echo(environment())
            ctx.exit()
        own = {option for parameter in self.get_params(ctx) for option in parameter.opts}
        if args and args[0] not in self.commands and args[0] not in own:
            if not args[0].startswith("-"):
                self._check_first(args[0])
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What each command does, in the first sentence of its help."""
        named = [(name, self.commands[name].help or "") for name in self.list_commands(ctx)]
        rows = [(name, " ".join(help.split("\n\n")[0].split())) for name, help in named]
        with formatter.section("Commands (mdlc COMMAND --help)"):
            formatter.write_dl(rows)

    def _check_first(self, word: str) -> None:
        """Raises MdlcError for what looks like the name of a command and is no file."""
        near = difflib.get_close_matches(word, self.commands, 1, cutoff=0.7)
        if near and not os.path.splitext(word)[1] and not os.path.exists(word):
            raise MdlcError(
                f"there is neither a command nor a file {word!r}",
                hint=f"did you mean `mdlc {near[0]}`?",
            )

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands, and files, as a model may stand first."""
        return [*super().shell_complete(ctx, incomplete), CompletionItem(incomplete, type="file")]


def _cmake_dir(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    """Prints the folder for CMAKE_MODULE_PATH or find_package."""
    if value and not ctx.resilient_parsing:
        from importlib.resources import files

        click.echo(os.fspath(str(files("mdlc.runtime_templates").joinpath("cmake"))))
        ctx.exit()


@click.group(cls=DefaultGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mdlc")
@click.option(
    "--cmake-dir",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_cmake_dir,
    help="Print the folder of mdlc.cmake and exit.",
)
def cli() -> None:
    """Compile a trained network (ONNX) to a self-contained C++ class.

    Example: mdlc model.onnx --target arm-neon -o out
    """


for _module in (
    compile, run, pipeline, accuracy, verify, bisect, doctor, bench, compress, inspect, explain,
    report, demo, package, tune, targets, bug_report,
):  # fmt: skip
    cli.add_command(_module.command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits: 0 done, 1 verification failed, 2 bad input, 3 a bug."""
    sys.exit(invoke(arguments))


def invoke(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code; errors are one sentence on stderr."""
    try:
        result = cli.main(args=arguments, prog_name="mdlc", standalone_mode=False)
    except MdlcError as error:
        return _fail(str(error))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return BAD_INPUT
    except click.ClickException as error:
        return _fail(error.format_message().rstrip("."))
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # The reader went away; nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return _report(error)
    return result if isinstance(result, int) else 0


def _report(error: Exception) -> int:
    """One line about a bug of mdlc's own, and the traceback where MDLC_DEBUG is set."""
    if os.environ.get(DEBUG):
        traceback.print_exc()
    at = traceback.extract_tb(error.__traceback__)[-1]
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    _fail(
        f"internal error: {what} ({os.path.basename(at.filename)}:{at.lineno}); this is a bug of "
        f"mdlc {__version__}: please report this line with the command and the model; "
        f"{DEBUG}=1 shows the traceback"
    )
    return BUG


def _fail(sentence: str) -> int:
    """One line on stderr."""
    click.echo("mdlc: " + " ".join(sentence.split()), err=True)
    return BAD_INPUT
