"""How much faster a class is on several threads, and how much faster it could be here.

    python -m benchmarks.threads [--network NAME ...] [--target T] [--threads N]

Every round times the class on one thread, then N classes of one thread each at the same time, in
processes of their own, then one class on N threads. Cores that share caches, memory and a power
budget slow each other down: what N independent classes compute together is the most that N
threads can be hoped to.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import click
import numpy as np
import onnx
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.cli import Plain
from benchmarks.networks import NETWORKS
from benchmarks.peers import mdlc_worker
from benchmarks.processes import Worker
from benchmarks.runtimes import Array
from mdlc.codegen.isa.registry import isas


def at_once(workers: Sequence[Worker], repeats: int) -> float:
    """The mean of the workers' medians, nanoseconds, while all of them run."""
    with ThreadPoolExecutor(len(workers)) as pool:
        found = pool.map(lambda worker: float(worker.ask(f"time {repeats}")), workers)
    return float(np.mean(list(found)))


def measure(network: str, target: str, threads: int, rounds: int, repeats: int) -> Array:
    """Milliseconds of one thread, N classes at once and N threads, a row for each round."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        model = Path(name) / f"{network}.onnx"
        onnx.save(NETWORKS[network](), model)
        alone = [
            stack.enter_context(mdlc_worker(f"alone{i}", model, target, 1)) for i in range(threads)
        ]
        shared = stack.enter_context(mdlc_worker("shared", model, target, threads))
        found = [
            [at_once(alone[:1], repeats), at_once(alone, repeats), at_once([shared], repeats)]
            for _ in track(range(rounds), description=network, transient=True)
        ]
    result: Array = np.array(found) / 1e6
    return result


@click.command(cls=Plain)
@click.option("--network", "networks", multiple=True, type=click.Choice(list(NETWORKS)))
@click.option("--target", default="host", show_default=True)
@click.option("--threads", default=2, show_default=True, type=click.IntRange(2, 64))
@click.option("--rounds", default=15, show_default=True, type=click.IntRange(min=1))
@click.option("--repeats", default=8, show_default=True, type=click.IntRange(min=1),
              help="Inferences per round.")  # fmt: skip
def main(networks: tuple[str, ...], target: str, threads: int, rounds: int, repeats: int) -> None:
    """Prints milliseconds and how many times as fast several threads are; medians over rounds."""
    if target != "host" and target not in isas():
        raise click.BadParameter(f"no target {target}; there are host, {', '.join(isas())}")
    table = Table(
        "network", "1 thread ms", f"{threads} threads ms", "times as fast", "of rounds",
        f"{threads} classes at once",
    )  # fmt: skip
    for network in networks or tuple(NETWORKS):
        times = measure(network, target, threads, rounds, repeats)
        one, _, shared = np.median(times, axis=0)
        ratios = times[:, 0] / times[:, 2]
        table.add_row(
            network,
            f"{one:.2f}",
            f"{shared:.2f}",
            f"{np.median(ratios):.2f}",
            f"{ratios.min():.2f} to {ratios.max():.2f}",
            f"{np.median(threads * times[:, 0] / times[:, 1]):.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
