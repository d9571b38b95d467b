"""mdlc verify: the emitted class against ONNX Runtime."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import click

from mdlc.api import CompiledModel
from mdlc.checks.certificate import certificate, changed_files, differences, read_certificate
from mdlc.checks.integer_verification import accuracy, computes_in_bytes, integer_layers
from mdlc.checks.verification import LayerErrors, verify
from mdlc.codegen.plan.sizes import size_text
from mdlc.codegen.run.executable import Executable
from mdlc.codegen.target import target_of
from mdlc.commands.compile import certificate_data
from mdlc.commands.console import err, out, progress, table
from mdlc.commands.options import GroupedCommand, Job, options_from, takes_model
from mdlc.commands.variants import runnable
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.types import Array
from mdlc.inputs.pictures import random_inputs
from mdlc.options import CompileOptions
from mdlc.precision.calibration_set import InputSet, labelled

# Sets of random values; one where that takes long: in an emulator, and of networks so large
# that every layer has elements enough.
RANDOM_RUNS, FEW_RUNS = 2, 1
MANY_MACS = 1_000_000_000
RANDOM_STEPS = 5  # of a sequence, where the class keeps a state
# The reference interpreter is slow.
INTEGER_RUNS = 3


@click.command("verify", cls=GroupedCommand)
@takes_model()
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
@click.option(
    "--quantized",
    is_flag=True,
    help="Count answers too: top-1 of the class and of the model over all of --inputs, right by "
    "--input-labels where given.",
)
@click.option(
    "--input-labels",
    type=click.Path(path_type=Path),
    metavar="CSV",
    help="Classes of --inputs (file,class), as the network counts them.",
)
@click.option(
    "--certificate",
    "certified",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Compile as NAME.certificate.json says, make it anew, and say what differs.",
)
def command(
    job: Job,
    certified: Path | None,
    inputs: Path | None,
    limit: int,
    seed: int,
    quantized: bool,
    input_labels: Path | None,
) -> None:
    """Compare every layer of the emitted class with the model in double precision.

    Prints the largest absolute, relative (to the tensor's largest magnitude) and ULP error, the
    signal-to-noise ratio, and ONNX Runtime's own relative error. Exit code 1 if a layer is
    further from the exact result of what it read than rounding explains (for sums, by their
    length and algorithm), and further than ONNX Runtime; if passes changed a tensor; or if ONNX
    Runtime reads an operator differently.

    A class of several sizes is judged at each. One that keeps a state (--state) runs the inputs as
    steps of one sequence.

    A class that computes in 8 bits is compared with the reference interpreter, whose integers it
    must have exactly (exit code 1 if not), and with the model: steps off, or the SNR.

    Of a class for several targets each is checked, as far as something here runs it.
    """
    if input_labels is not None and not quantized:
        raise MdlcError("only --quantized uses it", node="--input-labels", hint="add --quantized")
    if quantized and inputs is None:
        raise MdlcError(
            "needs pictures to count answers on", node="--quantized", hint="give --inputs"
        )
    if certified is not None:
        _certificate(job, certified, inputs)
        return
    compiled = job.compile()
    for each in runnable(compiled):
        _verify(job, each, inputs, limit, seed, quantized, input_labels)


def _certificate(job: Job, path: Path, inputs: Path | None) -> None:
    """Makes a certificate anew, and compares it and the files beside it."""
    old = read_certificate(path)
    given = job.options == CompileOptions()
    options = options_from(shlex.split(old["command"])[2:], job.model.parent) if given else None
    compiled = (job if options is None else replace(job, options=options)).compile()
    data = certificate_data(compiled, inputs, "--inputs")
    if data.told["kind"] != old["inputs"]["kind"]:
        raise MdlcError(
            f"errors were measured on {old['inputs'].get('source', 'seeded values')}",
            node="--inputs",
            hint="give the same ones" if inputs is None else "leave it out",
        )
    with progress(job.verbose) as tell:
        tell("measuring errors and memory")
        new = certificate(compiled, data)
    told = changed_files(old, path.parent) + differences(old, new)
    if not told:
        out().print(f"{path.name} holds: {len(old['files'])} files, every layer and its memory")
        return
    for line in told:
        out().print(line, soft_wrap=True)
    raise click.exceptions.Exit(1)


def _verify(
    job: Job,
    compiled: CompiledModel,
    inputs: Path | None,
    limit: int,
    seed: int,
    quantized: bool,
    input_labels: Path | None,
) -> None:
    with progress(job.verbose) as tell:
        tell("building")
        executable = compiled.build()
    if (quantized or inputs is not None) and compiled.others:
        raise MdlcError("are of one size, but the class has several",
                        node="--quantized" if quantized else "--inputs",
                        hint="leave it out, or give every input one shape")  # fmt: skip
    for one in compiled.sizes:
        if one.plan.variant:
            out().print(f"size {size_text(one.plan)}")
        given = _inputs(one, inputs, limit, seed)
        if quantized or computes_in_bytes(one):
            _integers(job, one, given, executable)
        else:
            _floats(job, one, given, executable)
    if quantized:
        _accuracy(job, compiled, inputs, input_labels)


def _floats(
    job: Job, compiled: CompiledModel, given: Iterator[Mapping[str, Array]], executable: Executable
) -> None:
    with progress(job.verbose) as tell:
        tell("running")
        found = verify(compiled, given, executable)
    shown = table(
        "layer",
        "operator",
        "max abs",
        "max rel",
        "max ULP",
        "SNR dB",
        "ORT rel",
        "of bound",
        "",
        right=("max abs", "max rel", "max ULP", "SNR dB", "ORT rel", "of bound"),
    )
    for layer in (*found.layers, *found.outputs):
        shown.add_row(*_row(layer))
    console = out()
    console.print(shown)
    first = found.first_off
    if first is None:
        console.print(f"every layer is within its bound ({found.runs} inputs)")
        return
    err().print(
        f"mdlc: layer {first.step!r} ({first.tensor}) is the first that is off: {first.fault}"
    )
    raise click.exceptions.Exit(1)


def _integers(
    job: Job, compiled: CompiledModel, given: Iterator[Mapping[str, Array]], executable: Executable
) -> None:
    with progress(job.verbose) as tell:
        tell("running")
        found = integer_layers(compiled, itertools.islice(given, INTEGER_RUNS), executable)
    right = ("elements", "differ", "steps off", "SNR dB")
    shown = table("layer", "operator", "output", *right, "", right=right)
    for layer in found.layers:
        off = layer.steps_off
        shown.add_row(
            layer.step,
            layer.kind,
            layer.dtype,
            str(layer.elements),
            str(layer.differing),
            "" if off is None else f"{off} (at most {layer.worst_step})" if off else "0",
            "" if layer.snr_db is None else f"{layer.snr_db:.1f}",
            "OFF" if layer.differing else "ok",
        )
    console = out()
    console.print(shown)
    first = found.first_off
    if first is None:
        console.print(f"every layer is what the reference computes ({found.runs} inputs)")
        return
    err().print(
        f"mdlc: layer {first.step!r} ({first.tensor}) is the first that is off: {first.differing} "
        f"of {first.elements} elements differ from the reference",
    )
    raise click.exceptions.Exit(1)


def _accuracy(job: Job, compiled: CompiledModel, source: Path | None, labels: Path | None) -> None:
    assert source is not None
    inputs = InputSet(compiled.graph, compiled.how, source, "--inputs")
    with progress(job.verbose) as tell:
        tell("counting answers")
        if labels is None:
            found = accuracy(compiled, inputs, None)
        else:
            counted = labelled(inputs, labels)
            found = accuracy(compiled, (f for f, _ in counted), [c for _, c in counted])
    console = out()
    console.print(f"answers of the model and of the class agree on {100 * found.agree:.1f} % "
                  f"of {found.runs} inputs")  # fmt: skip
    if found.found is not None and found.trained is not None:
        console.print(
            f"top-1: model {100 * found.trained:.2f} %, class {100 * found.found:.2f} %: "
            f"{100 * (found.trained - found.found):.2f} points lost"
        )


def _row(layer: LayerErrors) -> tuple[str, ...]:
    e = layer.errors
    numbers = ("",) * 4
    if e is not None:
        numbers = (f"{e.max_abs:.3g}", f"{e.max_rel:.3g}", str(e.max_ulp), f"{e.snr_db:.1f}")
    runtime = "" if layer.runtime is None else f"{layer.runtime:.2g}"
    share = f"{layer.excess:.2f}" if layer.excess else ""
    return (layer.step, layer.kind, *numbers, runtime, share, layer.verdict)


def _inputs(
    compiled: CompiledModel, source: Path | None, limit: int, seed: int
) -> Iterator[Mapping[str, Array]]:
    graph, how = compiled.graph, compiled.how
    if source is None:
        plan = compiled.plan
        slow = target_of(plan).emulated or plan.macs > MANY_MACS
        runs = FEW_RUNS if slow else RANDOM_RUNS
        for run in range(RANDOM_STEPS if graph.states else runs):
            yield random_inputs(graph, how, seed + run)
        return
    yield from itertools.islice(InputSet(graph, how, source, "--inputs"), limit)
