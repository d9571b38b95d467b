"""Options that several commands share, and how they become a call of the library."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click
from click.shell_completion import CompletionItem

import mdlc
from mdlc.codegen.target import targets
from mdlc.commands.console import progress
from mdlc.commands.quantization import (
    quantization_of,
    quantization_options,
    tell_half_precision,
    write_quantization,
)
from mdlc.compiler.errors import MdlcError
from mdlc.inputs.preprocess import INPUT_FORMATS

P = ParamSpec("P")
T = TypeVar("T")
Command = Callable[..., Any]


class TargetType(click.ParamType[str]):
    """The name of a target, completed by the shell."""

    name = "target"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The names that begin as typed."""
        return [CompletionItem(n) for n in (*targets(), "host") if n.startswith(incomplete)]


@dataclass(frozen=True)
class ModelOptions:
    """The options that say what is compiled, and how."""

    model: Path
    target: str
    name: str | None
    shape: tuple[str, ...]
    mean: str | None
    std: str | None
    input_format: str | None
    channel_order: str
    dump: Path | None
    check: bool
    verbose: bool
    core: str | None = None
    threads: int = 1
    embed_weights: bool = False
    weights_encoding: str = "raw"
    max_size: int | None = None
    precision: str = "fp32"
    quantize: str | None = None
    calibrate: Path | None = None
    calibration: str | None = None
    per_tensor: bool = False
    keep_float: tuple[str, ...] = ()
    accuracy_drop: float | None = None
    classes: Path | None = None
    rounding: str | None = None
    equalise: bool = False
    placement: str | None = None
    calibration_table: Path | None = None
    quantization_report: Path | None = None
    tuned: tuple[Path, ...] = ()
    no_tuned: bool = False
    fallback: str | None = None

    def quantization(self) -> mdlc.Quantize | None:
        """What is asked of low precision, if anything is.

        Raises:
            MdlcError: options that only it has are given without it, or it lacks its inputs.
        """
        return quantization_of(self)

    def compile(self) -> mdlc.CompiledModel:
        """Calls the library, with progress on stderr; writes what low precision leaves."""
        if self.tuned and self.no_tuned:
            raise MdlcError("contradicts --tuned", node="--no-tuned", hint="give one of the two")
        with progress(self.verbose) as tell:
            compiled = mdlc.compile(
                self.model,
                self.target,
                name=self.name,
                shapes=parse_shapes(self.shape),
                mean=self.mean,
                std=self.std,
                input_format=self.input_format,
                channel_order=self.channel_order,
                core=self.core,
                threads=self.threads,
                tuned=self.tuned or (() if self.no_tuned else None),
                embed_weights=self.embed_weights,
                weights_encoding=self.weights_encoding,
                max_size=self.max_size,
                quantize=self.quantization(),
                fallback=self.fallback,
                precision=self.precision,
                calibrate=None if self.quantize else self.calibrate,
                dump=self.dump,
                check=self.check,
                progress=tell,
            )
            write_quantization(self, compiled)
            tell_half_precision(compiled)
        return compiled


def parse_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Shapes by input name from texts such as input=1,3,224,224.

    Raises:
        MdlcError: one is not of that form.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, dims = text.rpartition("=")
        try:
            shape = tuple(int(dim) for dim in dims.replace("x", ",").split(","))
        except ValueError:
            shape = ()
        if not name or not shape or min(shape) < 1:
            raise MdlcError(
                f"{text!r} is no shape", node="--shape", hint="write --shape input=1,3,224,224"
            )
        shapes[name] = shape
    return shapes


def model_options(
    default_target: str = "host",
    *,
    schedules: bool = True,
    low_precision: bool = True,
    labels: bool = True,
) -> Callable[[Command], Command]:
    """Adds MODEL and the options of ModelOptions, which the command gets as `options`.

    Args:
        schedules: whether the command has a use for chosen schedules.
        low_precision: whether it computes, so that --quantize means something.
        labels: whether --labels is the CSV of low precision.
    """
    decorators = [
        click.argument("model", type=click.Path(path_type=Path)),
        click.option(
            "-t",
            "--target",
            type=TargetType(),
            default=default_target,
            show_default=True,
            help="What to compile for; see `mdlc targets`.",
        ),
        click.option(
            "--name",
            metavar="CLASS",
            help="Name of the emitted class; the default is made of the file's name.",
        ),
        click.option(
            "--shape",
            multiple=True,
            metavar="INPUT=DIMS",
            help="Shape of an input with open dimensions, as input=1,3,224,224. "
            "An open batch is 1 by itself. May be repeated.",
        ),
        click.option(
            "--input-format",
            type=click.Choice([*INPUT_FORMATS, "float"]),
            help="What the caller's buffer holds: 8-bit pixels, row by row, or floats "
            "in the network's own shape. Default: the network's input as it is.",
        ),
        click.option(
            "--mean",
            metavar="M[,M,M]",
            help="Subtracted from the buffer's values (0..255 for 8-bit formats), one "
            "number or one per channel of the network.",
        ),
        click.option("--std", metavar="S[,S,S]", help="Divides what is left after --mean."),
        click.option(
            "--channel-order",
            type=click.Choice(["rgb", "bgr"]),
            default="rgb",
            show_default=True,
            help="Order of channels that the network was trained on.",
        ),
        click.option(
            "--core",
            metavar="CORE",
            help="Core of the target that schedules are chosen for; see `mdlc targets --cores`. "
            "Default: what suits the target's processors in general.",
        ),
        click.option(
            "--threads",
            type=click.IntRange(1, 64),
            default=1,
            show_default=True,
            help="Most threads that the emitted class computes on; Init may be told fewer.",
        ),
        click.option(
            "--weights-encoding",
            default="raw",
            show_default=True,
            metavar="ENCODING",
            help="How weights are stored: raw, fp16, bf16, int8 or clustered:BITS (2 to 8), each "
            "with +huffman or not; auto: the least error for --max-size. All but raw are "
            "decoded by Init; arithmetic stays float32.",
        ),
        click.option(
            "--max-size",
            type=click.IntRange(1),
            metavar="BYTES",
            help="Most bytes of the weights file, for --weights-encoding auto.",
        ),
        click.option(
            "--fallback",
            type=click.Choice(["cpu"]),
            help="Leave layers that a GPU target lacks to a C++ class, instead of refusing.",
        ),
        click.option(
            "--dump",
            type=click.Path(path_type=Path, file_okay=False),
            metavar="DIR",
            help="Write the graph after every pass to this folder, as text.",
        ),
        click.option(
            "--check",
            is_flag=True,
            help="Run the network in NumPy before and after every pass and compare.",
        ),
        click.option("-v", "--verbose", is_flag=True, help="Say what is being done."),
    ]
    if schedules:
        decorators += [
            click.option(
                "--tuned",
                multiple=True,
                type=click.Path(path_type=Path, dir_okay=False),
                metavar="FILE",
                help="Choose schedules by this table of `mdlc tune` instead of the one that comes "
                "with mdlc. May be repeated: later tables override.",
            ),
            click.option(
                "--no-tuned",
                is_flag=True,
                help="Choose schedules by the cost model alone.",
            ),
        ]

    if low_precision:
        decorators += quantization_options(labels)

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def gathered(**given: Any) -> Any:
            fields = {
                name: given.pop(name) for name in ModelOptions.__dataclass_fields__ if name in given
            }
            return function(options=ModelOptions(**fields), **given)

        command: Command = gathered
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate
