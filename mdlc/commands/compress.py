"""mdlc compress: a smaller network, and what each stage costs."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import click

from mdlc.codegen.weights.encoding import parse_encoding
from mdlc.commands.console import progress
from mdlc.commands.options import GroupedCommand, Job, takes_model
from mdlc.commands.paths import Written
from mdlc.commands.tables import Column, Form, Sheet, number, prints_table
from mdlc.commands.variants import single
from mdlc.compiler.errors import MdlcError
from mdlc.compress.compression import METHODS, Compressed, Recipe, compress
from mdlc.compress.ledger import Ledger, write_ledger
from mdlc.inputs.samples import Samples, load_samples
from mdlc.option import Group
from mdlc.output import write_file
from mdlc.precision.calibration_set import check_set

DEFAULT = "raw"


@click.command(
    "compress",
    cls=GroupedCommand,
    example="mdlc compress model.onnx --prune-channels 0.3 --test pictures/ -o small.onnx",
)
@takes_model({Group.TARGET, Group.INPUT, Group.CODE, Group.WEIGHTS, Group.SCHEDULES, Group.PASSES})
@click.option(
    "--prune-channels",
    type=float,
    metavar="SHARE",
    help="Cut this share of the channels of every layer, 0 to 1.",
)
@click.option(
    "--target-macs",
    type=float,
    metavar="SHARE",
    help="Cut channels until this share of the multiply-adds is left.",
)
@click.option(
    "--prune-weights",
    type=float,
    metavar="SHARE",
    help="Make this share of the weights of every layer zero, those of the smallest magnitude.",
)
@click.option(
    "--block",
    metavar="1xN",
    default="1x1",
    show_default=True,
    help="Weights of N output channels are zero together: N lanes of the target, or a multiple.",
)
@click.option(
    "--method",
    type=click.Choice(METHODS),
    help="What is cut: filters of the smallest L1 norm, or by least-squares reconstruction of "
    "the layers' outputs on --calibrate data, whose weights are then fitted anew. "
    "Default: reconstruct where there is data.",
)
@click.option(
    "--calibrate",
    "calibration_data",
    type=click.Path(path_type=Path),
    metavar="DIR|NPZ",
    help="Inputs to fit to: a folder of pictures or an NPZ file. Labels are not used.",
)
@click.option(
    "--calibrate-limit",
    type=click.IntRange(1),
    default=200,
    show_default=True,
    help="Most inputs to fit to.",
)
@click.option(
    "--channel-multiple",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    help="Numbers of channels are rounded up to a multiple of this.",
)
@click.option(
    "--skip-layer", multiple=True, metavar="NAME", help="Cut no filter of this layer. Repeatable."
)
@click.option(
    "--encodings",
    metavar="E,E,...",
    help="Further weights encodings for the report, comma-separated, before --weights-encoding.",
)
@click.option(
    "--test",
    type=click.Path(path_type=Path),
    metavar="DIR|NPZ",
    help="Inputs for accuracy; an NPZ file may hold labels in its array `labels`.",
)
@click.option("--test-limit", type=click.IntRange(1), help="Most inputs to test on.")
@click.option(
    "--test-labels",
    "labels",
    type=click.Path(path_type=Path),
    metavar="CSV",
    help="Classes of the pictures of --test: a CSV file with columns file and class.",
)
@click.option("--label-offset", type=int, default=0, help="Added to labels.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the pixels fitted to."
)
@click.option(
    "--report",
    type=Written(),
    metavar="FILE",
    help="Write the ledger as FILE.html and FILE.json.",
)
@click.option(
    "-o",
    "--output",
    type=Written(folder=None),
    metavar="OUT",
    help="Write the pruned network (OUT.onnx), or else the emitted class (a folder).",
)
@click.option(
    "--work",
    type=Written(folder=True),
    metavar="DIR",
    help="Folder for finished stages, from which a run that was killed goes on. "
    "Default: MODEL.compress here.",
)
@prints_table()
def command(
    job: Job,
    prune_channels: float | None,
    target_macs: float | None,
    prune_weights: float | None,
    block: str,
    method: str | None,
    calibration_data: Path | None,
    calibrate_limit: int,
    channel_multiple: int,
    skip_layer: tuple[str, ...],
    encodings: str | None,
    test: Path | None,
    test_limit: int | None,
    labels: Path | None,
    label_offset: int,
    seed: int,
    report: Path | None,
    output: Path | None,
    work: Path | None,
    form: Form,
) -> None:
    """Cut channels and weights of MODEL, encode the rest; print what each stage saves and costs."""
    single(job, "compress")
    listed = [text for text in (encodings or "").split(",") if text]
    for text in listed:
        parse_encoding(text)
    if job.options.weights_encoding != DEFAULT:
        listed.append(job.options.weights_encoding)
    if labels is not None and test is None:
        raise MdlcError("labels need pictures", node="--test-labels", hint="give --test DIR")
    for given, flag in ((calibration_data, "--calibrate"), (test, "--test")):
        if given is not None:
            check_set(given, flag)
    recipe = Recipe(
        prune_channels,
        target_macs,
        method or ("l1" if calibration_data is None else "reconstruct"),
        channel_multiple,
        skip_layer,
        tuple(listed),
        job.options.max_size,
        seed,
        prune_weights,
        parse_block(block),
    )
    with progress(job.verbose) as tell:
        found = _run(
            job, recipe, calibration_data, calibrate_limit, test, test_limit, labels,
            label_offset, work or Path(f"{job.model.stem}.compress"), tell,
        )  # fmt: skip
    ledger = found.ledger
    form.show(sheet(ledger))
    for line in ledger.absent():
        form.line(line)
    form.document(ledger.to_json())
    paths = []
    if output is not None and output.suffix == ".onnx":
        write_file(output, found.model.SerializeToString(deterministic=True))
        paths.append(output)
    elif output is not None:
        paths += found.compiled.write(output)
    if report is not None:
        paths += write_ledger(report, ledger)
    for path in paths:
        form.line(str(path))


def sheet(ledger: Ledger) -> Sheet:
    """The stages as a table, without the columns that nothing was measured for."""
    first = ledger.entries[0]

    def percent(value: float) -> str:
        return f"{100 * value:.2f} %"

    columns = (
        Column("stage", "stage", least=10),
        number("disk_bytes", "disk", lambda value: f"{value / 1e6:.3f} MB"),
        number("disk_share", "", lambda value: f"1/{1 / value:.1f}", rank=4),
        number("memory_bytes", "memory", lambda value: f"{value / 1e6:.3f} MB", rank=5),
        number("macs", "MAC", lambda value: f"{value / 1e6:.2f} M", rank=3),
        number("predicted_mcycles", "Mcycles", lambda value: f"{value:.2f}", rank=2),
        number("measured_ms", "ms", lambda value: f"{value:.3f}"),
        number("top1", "top-1", percent),
        number("top5", "top-5", percent, rank=6),
        number("agreement", "agree", percent, rank=1),
        number("weight_error", "weights' error", lambda v: f"{100 * v:.2g} %", rank=7),
    )
    rows = [
        {**asdict(entry), "disk_share": entry.disk_bytes / first.disk_bytes}
        for entry in ledger.entries
    ]
    used = tuple(c for c in columns if any(row[c.key] is not None for row in rows))
    return Sheet(used, rows)


def parse_block(text: str) -> int:
    """N of 1xN.

    Raises:
        MdlcError: it is something else.
    """
    match = re.fullmatch(r"1x(\d{1,4})", text)
    if match is None:
        raise MdlcError(
            f"{text!r} is not a block",
            node="--block",
            hint="write 1xN: N output channels of one input",
        )
    return int(match[1])


def _run(
    job: Job,
    recipe: Recipe,
    calibrate: Path | None,
    calibrate_limit: int,
    test: Path | None,
    test_limit: int | None,
    labels: Path | None,
    label_offset: int,
    work: Path,
    tell: object,
) -> Compressed:
    plain = job.changed(weights_encoding=DEFAULT, max_size=None)
    compiled = plain.compile()

    def samples(
        path: Path | None, flag: str, limit: int | None, csv: Path | None
    ) -> Samples | None:
        if path is None:
            return None
        return load_samples(path, compiled.graph, compiled.how, flag, limit=limit, labels=csv)

    return compress(
        job.model,
        recipe,
        work=work,
        calibration=samples(calibrate, "--calibrate", calibrate_limit, None),
        test=samples(test, "--test", test_limit, labels),
        label_offset=label_offset,
        options=plain.options,
        progress=tell,  # type: ignore[arg-type]
    )
