"""mdlc accuracy: how well the emitted class does on labelled pictures."""

from __future__ import annotations

from pathlib import Path

import click

from mdlc.checks.evaluation import Table, evaluate, parse_shard
from mdlc.checks.metrics import LABELS, METRICS, read_metric
from mdlc.commands.console import progress
from mdlc.commands.options import COMPILING, GroupedCommand, Job, takes_model
from mdlc.commands.paths import Written
from mdlc.commands.tables import Column, Form, Sheet, number, prints_table
from mdlc.compiler.errors import MdlcError
from mdlc.option import Group
from mdlc.precision.calibration_set import InputSet


@click.command(
    "accuracy",
    cls=GroupedCommand,
    example="mdlc accuracy model.onnx --data pictures --data-labels labels.csv --metric top1",
)
@takes_model(COMPILING - {Group.LABELS})
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER",
    help="Pictures.",
)
@click.option(
    LABELS,
    "labels",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE|FOLDER",
    help="What they show: a CSV file with columns file and class (top1) or file and text (cer), "
    "COCO's annotations (map, oks), or a folder of masks (miou).",
)
@click.option("--metric", type=click.Choice(METRICS), required=True, help="What is measured.")
@click.option(
    "--label-offset",
    type=int,
    default=0,
    help="Added to the classes of --data-labels: 1 where class 0 of the network is the background.",
)
@click.option("--limit", type=click.IntRange(1), help="Most pictures, the first ones by name.")
@click.option("--jobs", type=click.IntRange(1), default=1, help="Programs that run at a time.")
@click.option("--shard", metavar="I/N", help="Part I of N of the pictures, for several machines.")
@click.option(
    "--table",
    "path",
    type=Written(),
    metavar="FILE",
    help="Records of pictures, continued where it is there. Default: MODEL.METRIC.jsonl here, "
    "with a shard's number.",
)
@click.option(
    "--merge",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    metavar="FILE",
    help="Also take the records of this table, such as a shard's. May be repeated.",
)
@prints_table()
def command(
    job: Job, data: Path, labels: Path, metric: str, label_offset: int, limit: int | None,
    jobs: int, shard: str | None, path: Path | None, merge: tuple[Path, ...], form: Form,
) -> None:  # fmt: skip
    """Run the emitted class of MODEL on labelled pictures.

    With --quantize int8, the float class is measured beside it. A run that was interrupted goes on
    where it was, by its table.
    """
    part = parse_shard(shard) if shard else None
    measured = read_metric(metric, labels, label_offset)
    if not data.is_dir():
        raise MdlcError("is not a folder", node=f"--data {data}", hint="name a folder of pictures")
    variants = {"float": (job.changed(quantize=None) if job.options.quantize else job).compile()}
    if job.options.quantize is not None:
        variants["int8"] = job.compile()
    variants = {name: compiled.here() for name, compiled in variants.items()}
    first = variants["float"]
    pictures = InputSet(first.graph, first.how, data, "--data").pictures()[:limit]
    measured.check(first, pictures)
    wanted = part.of(pictures) if part else pictures
    if not wanted:
        raise MdlcError("has no pictures", node="--shard", hint="make fewer shards")
    about = {
        "model": first.model.sha256,
        "metric": metric,
        "labels": labels.name,
        "target": first.plan.backend.name,
        "options": first.info.command,
    }
    ending = f".{part.index}of{part.count}" if part else ""
    records = Table(about, path=path or Path(f"{job.model.stem}.{metric}{ending}.jsonl"))
    for other in merge:
        records.read(other)
    records.begin()
    with progress(job.verbose) as tell:
        figures = evaluate(variants, measured, wanted, records, jobs=jobs, progress=tell)
    names = list(figures["float"])
    columns = (
        Column("variant", f"{len(wanted)} pictures"),
        *(number(name, name, lambda value: f"{value:.4f}") for name in names),
    )
    form.show(Sheet(columns, [{"variant": name, **found} for name, found in figures.items()]))
    form.document({"pictures": len(wanted), **figures})
