"""mdlc verify: the emitted class against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from mdlc.api import CompiledModel
from mdlc.commands.console import err, out, progress, table
from mdlc.commands.options import ModelOptions, model_options
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.types import Array
from mdlc.pictures import PICTURE_ENDINGS, load_inputs, random_inputs
from mdlc.verification import LayerErrors, verify

RANDOM_RUNS = 2


@click.command("verify")
@model_options()
@click.option(
    "--inputs",
    type=click.Path(path_type=Path),
    metavar="DIR|NPZ",
    help="A folder of pictures, a picture, or an NPZ file. Default: random values.",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="Most pictures to take from a folder.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random values.")
def command(options: ModelOptions, inputs: Path | None, limit: int, seed: int) -> None:
    """Compare every layer of the emitted class with ONNX Runtime.

    Prints the largest absolute, relative (to the tensor's largest magnitude) and ULP error and
    the signal-to-noise ratio. Exit code 1 if a layer is outside its bound: 1e-4 relative for
    float32, 2e-2 for networks in float16, 1 in 1000 elements for integers.
    """
    compiled = options.compile()
    with progress(options.verbose) as tell:
        tell("building and running")
        found = verify(compiled, _inputs(compiled, inputs, limit, seed))
    shown = table(
        "layer",
        "operator",
        "max abs",
        "max rel",
        "max ULP",
        "SNR dB",
        "",
        right=("max abs", "max rel", "max ULP", "SNR dB"),
    )
    for layer in (*found.layers, *found.outputs):
        shown.add_row(*_row(layer))
    console = out()
    console.print(shown)
    first = found.first_off
    if first is None:
        console.print(f"every layer is within its bound ({found.runs} inputs)")
        return
    assert first.errors is not None
    err().print(
        f"mdlc: layer {first.step!r} ({first.tensor}) is the first that is off: relative error "
        f"{first.errors.max_rel:.3g}, bound {first.errors.bound:g}",
    )
    raise click.exceptions.Exit(1)


def _row(layer: LayerErrors) -> tuple[str, ...]:
    if layer.errors is None:
        return (layer.step, layer.kind, "", "", "", "", layer.note)
    e = layer.errors
    return (
        layer.step,
        layer.kind,
        f"{e.max_abs:.3g}",
        f"{e.max_rel:.3g}",
        str(e.max_ulp),
        f"{e.snr_db:.1f}",
        "ok" if e.ok else f"OFF: bound {e.bound:g}",
    )


def _inputs(
    compiled: CompiledModel, source: Path | None, limit: int, seed: int
) -> Iterator[Mapping[str, Array]]:
    graph, how = compiled.graph, compiled.how
    if source is None:
        for run in range(RANDOM_RUNS):
            yield random_inputs(graph, how, seed + run)
        return
    if not source.is_dir():
        yield load_inputs(source, graph, how, "--inputs")
        return
    pictures = sorted(p for p in source.iterdir() if p.suffix.lower() in PICTURE_ENDINGS)
    if not pictures:
        raise MdlcError("there are no pictures in this folder", node=str(source))
    for picture in pictures[:limit]:
        yield load_inputs(picture, graph, how, "--inputs")
