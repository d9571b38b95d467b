"""mdlc compress: a smaller network, and what each stage costs."""

from __future__ import annotations

import re
from pathlib import Path

import click

from mdlc.codegen.weights.encoding import parse_encoding
from mdlc.commands.console import out, progress, table
from mdlc.commands.options import GroupedCommand, Job, takes_model
from mdlc.commands.variants import single
from mdlc.compiler.errors import MdlcError
from mdlc.compress.compression import METHODS, Compressed, Recipe, compress
from mdlc.compress.ledger import write_ledger
from mdlc.inputs.samples import Samples, load_samples
from mdlc.option import Group
from mdlc.output import write_file

DEFAULT = "raw"


@click.command("compress", cls=GroupedCommand)
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
    "--labels",
    type=click.Path(path_type=Path),
    metavar="CSV",
    help="Classes of the pictures of --test: a CSV file with columns file and class.",
)
@click.option("--label-offset", type=int, default=0, help="Added to labels.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the pixels fitted to.")
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the ledger as FILE.html and FILE.json.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="OUT",
    help="OUT.onnx: the pruned network; else a folder for the emitted class.",
)
@click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder for finished stages, from which a run that was killed goes on. "
    "Default: MODEL.compress here.",
)
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
) -> None:
    """Cut channels and weights of MODEL, encode the rest; print what each stage saves and costs."""
    single(job, "compress")
    listed = [text for text in (encodings or "").split(",") if text]
    for text in listed:
        parse_encoding(text)
    if job.options.weights_encoding != DEFAULT:
        listed.append(job.options.weights_encoding)
    if labels is not None and test is None:
        raise MdlcError("labels need pictures", node="--labels", hint="give --test DIR")
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
    console = out()
    ledger = found.ledger
    shown = table(*ledger.columns(), right=ledger.columns()[1:])
    for row in ledger.rows():
        shown.add_row(*row)
    console.print(shown)
    paths = []
    if output is not None and output.suffix == ".onnx":
        write_file(output, found.model.SerializeToString(deterministic=True))
        paths.append(output)
    elif output is not None:
        paths += found.compiled.write(output)
    if report is not None:
        paths += write_ledger(report, ledger)
    for path in paths:
        console.print(str(path), soft_wrap=True)


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
