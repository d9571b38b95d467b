"""mdlc verify: the emitted class against ONNX Runtime."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from mdlc.api import CompiledModel
from mdlc.checks.certificate import certificate, changed_files, differences, read_certificate
from mdlc.checks.integer_verification import (
    IntegerLayer,
    accuracy,
    computes_in_bytes,
    integer_layers,
)
from mdlc.checks.verification import LayerErrors, verify
from mdlc.codegen.plan.sizes import size_text
from mdlc.codegen.run.executable import Executable
from mdlc.codegen.target import target_of
from mdlc.commands.compile import certificate_data
from mdlc.commands.console import counting, err, out, progress
from mdlc.commands.options import GroupedCommand, Job, options_from, takes_model
from mdlc.commands.tables import Column, Form, Sheet, number, prints_table
from mdlc.commands.variants import runnable
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.types import Array
from mdlc.inputs.pictures import random_inputs
from mdlc.options import CompileOptions
from mdlc.precision.calibration_set import InputSet, Limited, check_set, labelled

# Sets of random values; one where that takes long: in an emulator, and of networks so large
# that every layer has elements enough.
RANDOM_RUNS, FEW_RUNS = 2, 1
MANY_MACS = 1_000_000_000
RANDOM_STEPS = 5  # of a sequence, where the class keeps a state
# The reference interpreter is slow.
INTEGER_RUNS = 3


Inputs = Iterable[Mapping[str, Array]]

COLUMNS = (
    Column("step", "layer", least=14),
    Column("kind", "operator", least=8, rank=3),
    number("max_abs", "max abs", lambda value: f"{value:.2g}", rank=4),
    number("max_rel", "max rel", lambda value: f"{value:.2g}"),
    number("max_ulp", "max ULP", rank=5),
    number("snr_db", "SNR dB", lambda value: f"{value:.1f}", rank=2),
    number("runtime", "ORT rel", lambda value: f"{value:.2g}", rank=1),
    number("excess", "of bound", lambda value: f"{value:.2f}" if value else "", word="bound"),
    Column("verdict", "", least=2),
)
INTEGER_COLUMNS = (
    Column("step", "layer", least=14),
    Column("kind", "operator", least=8, rank=2),
    Column("dtype", "output", rank=3),
    number("elements", "elements", rank=4),
    number("differing", "differ"),
    number("steps_off", "steps off"),
    number("worst_step", "most", rank=1),
    number("snr_db", "SNR dB", lambda value: f"{value:.1f}"),
    Column("verdict", "", least=2),
)


@click.command("verify", cls=GroupedCommand, example="mdlc verify model.onnx --inputs pictures/")
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
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the random values."
)
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
@prints_table(COLUMNS)
def command(
    job: Job,
    certified: Path | None,
    inputs: Path | None,
    limit: int,
    seed: int,
    quantized: bool,
    input_labels: Path | None,
    form: Form,
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
    if inputs is not None:
        check_set(inputs, "--inputs")
    compiled = job.compile()
    documents: list[dict[str, Any]] = []
    off = False
    for each in runnable(compiled, quiet=not form.text):
        off |= _verify(job, each, inputs, limit, seed, quantized, input_labels, form, documents)
        if off and form.text:
            break
    form.document(documents if len(documents) > 1 else documents[0])
    if off:
        raise click.exceptions.Exit(1)


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
    form: Form,
    documents: list[dict[str, Any]],
) -> bool:
    """Judges one variant; whether a layer is off."""
    with progress(job.verbose) as tell:
        tell("building")
        executable = compiled.build()
    if (quantized or inputs is not None) and compiled.others:
        raise MdlcError("are of one size, but the class has several",
                        node="--quantized" if quantized else "--inputs",
                        hint="leave it out, or give every input one shape")  # fmt: skip
    for one in compiled.sizes:
        if one.plan.variant:
            form.line(f"size {size_text(one.plan)}")
        judge = _integers if quantized or computes_in_bytes(one) else _floats
        found = judge(job, one, _inputs(one, inputs, limit, seed), executable, form)
        documents.append(found)
        if not found["ok"]:
            return True
    if quantized:
        documents[-1]["accuracy"] = _accuracy(job, compiled, inputs, input_labels, form)
    return False


def _floats(
    job: Job, compiled: CompiledModel, given: Inputs, executable: Executable, form: Form
) -> dict[str, Any]:
    with progress(job.verbose) as tell:
        found = verify(compiled, counting(given, "comparing layers, input", tell), executable)
    rows = [_row(layer) for layer in (*found.layers, *found.outputs)]
    first = found.first_off
    fault = "" if first is None else first.fault
    said = f"every layer is within its bound ({found.runs} inputs)"
    return _told(compiled, Sheet(COLUMNS, rows), found.runs, first, fault, said, form)


def _integers(
    job: Job, compiled: CompiledModel, given: Inputs, executable: Executable, form: Form
) -> dict[str, Any]:
    few = list(itertools.islice(given, INTEGER_RUNS))
    with progress(job.verbose) as tell:
        found = integer_layers(compiled, counting(few, "comparing layers, input", tell), executable)
    rows = [
        {**asdict(layer), "verdict": "OFF" if layer.differing else "ok"} for layer in found.layers
    ]
    first = found.first_off
    fault = (
        ""
        if first is None
        else f"{first.differing} of {first.elements} elements differ from the reference"
    )
    said = f"every layer is what the reference computes ({found.runs} inputs)"
    return _told(compiled, Sheet(INTEGER_COLUMNS, rows), found.runs, first, fault, said, form)


def _told(
    compiled: CompiledModel,
    table: Sheet,
    runs: int,
    first: LayerErrors | IntegerLayer | None,
    fault: str,
    said: str,
    form: Form,
) -> dict[str, Any]:
    """Prints the layers of a class at one size, and what was found; gives it as plain values."""
    target, size = compiled.plan.backend.name, size_text(compiled.plan)
    form.show(table, target=target, size=size)
    if first is None:
        form.line(said)
    else:
        err().print(
            f"mdlc: layer {first.step!r} ({first.tensor}) is the first that is off: {fault}"
        )
    return {
        "target": target,
        "size": size,
        "inputs": runs,
        "ok": first is None,
        "first_off": None if first is None else first.step,
        "layers": form.sorted(table),
    }


def _accuracy(
    job: Job, compiled: CompiledModel, source: Path | None, labels: Path | None, form: Form
) -> dict[str, Any]:
    assert source is not None
    inputs = InputSet(compiled.graph, compiled.how, source, "--inputs")
    with progress(job.verbose) as tell:
        if labels is None:
            found = accuracy(compiled, counting(inputs, "counting answers", tell), None)
        else:
            counted = labelled(inputs, labels)
            frames = counting([frame for frame, _ in counted], "counting answers", tell)
            found = accuracy(compiled, frames, [label for _, label in counted])
    form.line(f"answers of the model and of the class agree on {100 * found.agree:.1f} % "
              f"of {found.runs} inputs")  # fmt: skip
    if found.found is not None and found.trained is not None:
        form.line(
            f"top-1: model {100 * found.trained:.2f} %, class {100 * found.found:.2f} %: "
            f"{100 * (found.trained - found.found):.2f} points lost"
        )
    return asdict(found)


def _row(layer: LayerErrors) -> dict[str, Any]:
    e = layer.errors
    numbers = {} if e is None else asdict(e)
    return {
        "step": layer.step,
        "kind": layer.kind,
        **numbers,
        "runtime": layer.runtime,
        "excess": layer.excess,
        "verdict": layer.verdict,
    }


def _inputs(compiled: CompiledModel, source: Path | None, limit: int, seed: int) -> Inputs:
    graph, how = compiled.graph, compiled.how
    if source is None:
        plan = compiled.plan
        slow = target_of(plan).emulated or plan.macs > MANY_MACS
        runs = RANDOM_STEPS if graph.states else FEW_RUNS if slow else RANDOM_RUNS
        return [random_inputs(graph, how, seed + run) for run in range(runs)]
    return Limited(InputSet(graph, how, source, "--inputs"), limit)
