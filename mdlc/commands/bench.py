"""mdlc bench: where the time goes."""

from __future__ import annotations

from typing import Any

import click

from mdlc.checks.benchmark import Benchmark, benchmark, notes
from mdlc.commands.console import byte_count, count, err, progress
from mdlc.commands.options import GroupedCommand, Job, takes_model
from mdlc.commands.tables import Column, Form, Sheet, number, prints_table
from mdlc.commands.variants import runnable

COLUMNS = (
    Column("name", "layer", least=18),
    Column("output", "output", least=14, rank=5),
    Column("kernel", "kernel", least=12, rank=3),
    Column("schedule", "schedule", least=12, rank=6),
    number("microseconds", "us", lambda value: f"{value:.1f}", word="time"),
    number("share", "% time", lambda value: f"{100 * value:.1f}", bar=True, rank=1),
    number("macs", "MAC", count, rank=2),
    number("gflops", "GFLOP/s", lambda value: f"{value:.1f}", rank=4),
    number("peak_share", "% peak", lambda value: f"{100 * value:.0f}", rank=1),
)


@click.command("bench", cls=GroupedCommand, example="mdlc bench model.onnx --sort time")
@takes_model()
@click.option(
    "--repeats",
    type=click.IntRange(1),
    default=50,
    show_default=True,
    help="Inferences; medians are shown.",
)
@prints_table(COLUMNS)
def command(job: Job, repeats: int, form: Form) -> None:
    """Build MODEL and time it on this machine, layer by layer.

    Shows GFLOP/s and the share of the peak of one core, which is measured in the same run with
    the target's multiply-adds, and the bytes of arena, weights and code.
    """
    compiled = job.compile()
    every = []
    for each in runnable(compiled, quiet=not form.text):
        with progress(job.verbose) as tell:
            tell("building")
            each.build()
            tell("timing")
            every.append(benchmark(each, repeats))
        _print(every[-1], form)
    documents = [{**each.to_json(), "layers": form.sorted(sheet(each))} for each in every]
    form.document(documents if compiled.plans else documents[0])


def sheet(found: Benchmark) -> Sheet:
    """The layers as a table."""
    summed = found.layer_sum
    rows: list[dict[str, Any]] = [
        {
            "name": layer.name,
            "output": layer.output,
            "kernel": layer.kernel,
            "schedule": layer.schedule,
            "microseconds": layer.microseconds,
            "share": layer.microseconds / (summed or 1.0),
            "macs": layer.macs,
            "gflops": layer.gflops,
            "peak_share": layer.gflops / found.peak_gflops,
        }
        for layer in found.layers
    ]
    total = {
        "name": "sum of the layers",
        "microseconds": summed,
        "share": 1.0,
        "macs": found.macs,
        "gflops": 2e-3 * found.macs / summed if summed else 0.0,
        "peak_share": 2e-3 * found.macs / summed / found.peak_gflops if summed else 0.0,
    }
    return Sheet(COLUMNS, rows, total)


def _print(found: Benchmark, form: Form) -> None:
    table = sheet(found)
    form.show(table, target=found.target)
    code = "unknown (no `size` tool)" if found.code_bytes is None else byte_count(found.code_bytes)
    form.line(
        f"{found.name} for {found.target}, {found.compiler}: {found.microseconds / 1e3:.3f} ms, "
        f"{found.gflops:.1f} GFLOP/s, {100 * found.gflops / found.peak_gflops:.0f} % of "
        f"{found.peak_gflops:.1f}; arena {byte_count(found.arena_bytes)}, weights "
        f"{byte_count(found.weight_bytes)}, code {code}"
    )
    for size, microseconds in found.sizes:
        form.line(f"at {size}: {microseconds / 1e3:.3f} ms")
    for note in notes(found):
        form.line(note)
    if found.emulated:
        err().print("mdlc: these are an emulator's times; they say nothing about real hardware")
