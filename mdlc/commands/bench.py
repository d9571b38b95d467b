"""mdlc bench: where the time goes."""

from __future__ import annotations

import json

import click

from mdlc.checks.benchmark import Benchmark, benchmark
from mdlc.commands.console import byte_count, count, err, out, progress, table
from mdlc.commands.options import GroupedCommand, Job, takes_model
from mdlc.commands.variants import runnable


@click.command("bench", cls=GroupedCommand)
@takes_model()
@click.option(
    "--repeats",
    type=click.IntRange(1),
    default=50,
    show_default=True,
    help="Inferences; medians are shown.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(job: Job, repeats: int, as_json: bool) -> None:
    """Build MODEL and time it on this machine, layer by layer.

    Shows GFLOP/s and the share of the peak of one core, which is measured in the same run with
    the target's multiply-adds, and the bytes of arena, weights and code.
    """
    compiled = job.compile()
    every = []
    for each in runnable(compiled, quiet=as_json):
        with progress(job.verbose) as tell:
            tell("building and timing")
            every.append(benchmark(each, repeats))
        if not as_json:
            _print(every[-1])
    if as_json:
        shown = [found.to_json() for found in every]
        click.echo(json.dumps(shown if compiled.plans else shown[0], indent=2))


def _print(found: Benchmark) -> None:
    right = ("us", "% time", "MAC", "GFLOP/s", "% peak")
    shown = table("layer", "output", "kernel", "schedule", *right, right=right)
    whole = sum(layer.microseconds for layer in found.layers) or 1.0
    for layer in found.layers:
        shown.add_row(
            layer.name,
            layer.output,
            layer.kernel,
            layer.schedule,
            f"{layer.microseconds:.1f}",
            f"{100 * layer.microseconds / whole:.1f}",
            count(layer.macs),
            f"{layer.gflops:.1f}",
            f"{100 * layer.gflops / found.peak_gflops:.0f}",
        )
    console = out()
    console.print(shown)
    code = "unknown (no `size` tool)" if found.code_bytes is None else byte_count(found.code_bytes)
    console.print(
        f"{found.name} for {found.target}, {found.compiler}: {found.microseconds / 1e3:.3f} ms, "
        f"{found.gflops:.1f} GFLOP/s, {100 * found.gflops / found.peak_gflops:.0f} % of "
        f"{found.peak_gflops:.1f}; arena {byte_count(found.arena_bytes)}, weights "
        f"{byte_count(found.weight_bytes)}, code {code}",
        soft_wrap=True,
    )
    for size, microseconds in found.sizes:
        console.print(f"at {size}: {microseconds / 1e3:.3f} ms")
    if found.emulated:
        err().print("mdlc: these are an emulator's times; they say nothing about real hardware")
