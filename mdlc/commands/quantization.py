"""Options of low precision, and what they leave: the table, the report, what was kept in float."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import mdlc
from mdlc.commands.console import err, out
from mdlc.compiler.errors import MdlcError
from mdlc.output import write_file, write_files
from mdlc.precision.quantize import DEFAULT_METHOD, PLACEMENTS, ROUNDINGS
from mdlc.precision.report import report_files
from mdlc.quantization.ranges import METHODS

if TYPE_CHECKING:
    from mdlc.commands.options import ModelOptions

# Options that mean nothing without --quantize: field of ModelOptions, and how it is written.
_NEED_QUANTIZE = {
    "calibration": "--calibration",
    "per_tensor": "--per-tensor",
    "keep_float": "--keep-float",
    "accuracy_drop": "--accuracy-drop",
    "classes": "--labels",
    "rounding": "--rounding",
    "equalise": "--equalise",
    "placement": "--placement",
    "calibration_table": "--calibration-table",
    "quantization_report": "--quantization-report",
}


def quantization_options(labels: bool) -> list[Callable[..., Any]]:
    """The decorators; see docs/quantization.md."""
    decorators = [
        click.option(
            "--precision",
            type=click.Choice(["fp32", "fp16", "bf16"]),
            default="fp32",
            show_default=True,
            help="fp16: compute in half precision where the target does, else store weights in "
            "it; bf16: store weights in the upper half of float32.",
        ),
        click.option(
            "--quantize",
            type=click.Choice(["int8"]),
            help="Compute in 8-bit integers; needs --calibrate.",
        ),
        click.option(
            "--calibrate",
            type=click.Path(path_type=Path),
            metavar="PICTURES|NPZ|TABLE",
            help="A folder of pictures or an NPZ file to learn the ranges of all tensors from, or "
            "(for --quantize) a table (.json) that --calibration-table kept.",
        ),
        click.option(
            "--calibration",
            type=click.Choice([*METHODS]),
            help=f"How ranges are chosen. Default: {DEFAULT_METHOD}.",
        ),
        click.option(
            "--per-tensor",
            is_flag=True,
            help="One scale for all weights of a layer, instead of one for every channel.",
        ),
        click.option(
            "--keep-float",
            multiple=True,
            metavar="LAYER[,LAYER]",
            help="Layers that stay in float, as the report names them. May be repeated.",
        ),
        click.option(
            "--accuracy-drop",
            type=float,
            metavar="POINTS",
            help="Most points of top-1 to lose: keeps the fewest layers in float that it takes.",
        ),
        click.option(
            "--rounding",
            type=click.Choice(ROUNDINGS),
            help="How weights are rounded: for the layer's output (default); to nearest, biases "
            "corrected; or to nearest and nothing more.",
        ),
        click.option(
            "--equalise",
            is_flag=True,
            help="Bring channels between convolutions to ranges alike first.",
        ),
        click.option(
            "--placement",
            type=click.Choice(PLACEMENTS),
            help="Integers where the target is faster with them (cost, default), or everywhere.",
        ),
        click.option(
            "--calibration-table",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="Write the ranges here, to be read, edited and given to --calibrate.",
        ),
        click.option(
            "--quantization-report",
            type=click.Path(path_type=Path, file_okay=False),
            metavar="DIR",
            help="Write figures of every layer here, and a plot of the ranges.",
        ),
    ]
    if labels:
        decorators.append(
            click.option(
                "--labels",
                "classes",
                type=click.Path(path_type=Path),
                metavar="CSV",
                help="Classes of the calibration pictures (file,class), for --accuracy-drop. "
                "Default: the float network's answers.",
            )
        )
    return decorators


def quantization_of(options: ModelOptions) -> mdlc.Quantize | None:
    """What the options ask of low precision; None where they ask nothing."""
    if options.quantize is None:
        for field, spelling in _NEED_QUANTIZE.items():
            if getattr(options, field):
                raise MdlcError(
                    "means nothing without --quantize", node=spelling, hint="add --quantize int8"
                )
        return None
    if options.calibrate is None:
        raise MdlcError(
            "8-bit integers need the ranges of all tensors",
            node="--quantize",
            hint="give --calibrate a folder of some 64 pictures, or an NPZ file",
        )
    kept = [name for text in options.keep_float for name in _names(text)]
    return mdlc.Quantize(
        options.calibrate,
        options.calibration or DEFAULT_METHOD,
        options.per_tensor,
        tuple(kept),
        options.accuracy_drop,
        options.classes,
        options.rounding or ROUNDINGS[0],
        options.equalise,
        options.placement or "cost",
    )


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def write_quantization(options: ModelOptions, compiled: mdlc.CompiledModel) -> None:
    """The files asked for, and a line about the layers that a budget kept in float."""
    low = compiled.low_precision
    if low is None or low.table is None:
        return
    if options.calibration_table is not None:
        write_file(options.calibration_table, low.table.dumps().encode())
    if options.quantization_report is not None:
        write_files(options.quantization_report, report_files(low, compiled.name))
    console = err()
    if low.placement is not None and low.placement.in_float:
        names = low.placement.in_float
        console.print(
            f"mdlc: {len(names)} of {len(low.placement.cycles)} layers stay in float, which is "
            f"faster on {compiled.plan.backend.name}: {_listed(names)}"
        )
    if low.choice is not None:
        kept = low.choice.kept
        console.print(
            f"mdlc: {len(kept)} layers stay in float for accuracy, {low.choice.lost:.2f} points of "
            f"top-1 are lost{': ' if kept else ''}{', '.join(kept)}"
        )


def tell_half_precision(compiled: mdlc.CompiledModel) -> None:
    """A line about layers that stay in float although half precision was asked for."""
    half = compiled.half_precision
    if half is None or half.narrowed is None:
        return
    kept, console = half.narrowed.kept, out()
    if kept:
        reasons = [f"{name} ({reason})" for name, reason in kept.items()]
        console.print(
            f"mdlc: {len(kept)} layers stay in float, as they could leave the range of half "
            f"precision: {_listed(reasons)}",
            soft_wrap=True,
        )
    estimated = sum(grounds == "estimated" for grounds in half.grounds.values())
    if estimated:
        err().print(
            f"mdlc: {estimated} layers are in half precision by an estimate of their range that "
            "takes inputs to be about normalised; --calibrate PICTURES measures it",
            soft_wrap=True,
        )


def _listed(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
