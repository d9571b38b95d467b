"""mdlc accuracy: how well the emitted class does on labelled pictures."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mdlc.checks.evaluation import Table, evaluate, parse_shard
from mdlc.checks.metrics import METRICS, read_metric
from mdlc.commands.console import err, out, table
from mdlc.commands.options import COMPILING, GroupedCommand, Job, takes_model
from mdlc.compiler.errors import MdlcError
from mdlc.option import Group
from mdlc.precision.calibration_set import InputSet


@click.command(
    "accuracy",
    cls=GroupedCommand,
    example="mdlc accuracy model.onnx --data pictures --labels labels.csv --metric top1",
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
    "--labels",
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
    help="Added to the classes of --labels: 1 where class 0 of the network is the background.",
)
@click.option("--limit", type=click.IntRange(1), help="Most pictures, the first ones by name.")
@click.option("--jobs", type=click.IntRange(1), default=1, help="Programs that run at a time.")
@click.option("--shard", metavar="I/N", help="Part I of N of the pictures, for several machines.")
@click.option(
    "--table",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
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
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(
    job: Job, data: Path, labels: Path, metric: str, label_offset: int, limit: int | None,
    jobs: int, shard: str | None, path: Path | None, merge: tuple[Path, ...], as_json: bool,
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
    wanted = part.of(pictures) if part else pictures
    if not wanted:
        raise MdlcError("has no pictures", node="--shard", hint="make fewer shards")
    with _bar(len(wanted) * len(variants)) as done:
        figures = evaluate(variants, measured, wanted, records, jobs=jobs, done=done)
    if as_json:
        click.echo(json.dumps({"pictures": len(wanted), **figures}, indent=2))
        return
    names = list(figures["float"])
    shown = table(f"{len(wanted)} pictures", *names, right=tuple(names))
    for variant, found in figures.items():
        shown.add_row(variant, *(f"{found[name]:.4f}" for name in names))
    out().print(shown)


@contextlib.contextmanager
def _bar(total: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, nothing elsewhere."""
    console = err()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("pictures", total=total)
        yield lambda: bar.advance(task)
