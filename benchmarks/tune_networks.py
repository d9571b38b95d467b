"""Measures the schedules of the standard networks into the table that ships with mdlc.

python -m benchmarks.tune_networks --target x86-avx512 [--minutes M]

The table is codegen/plan/tuned/TARGET.json of this clone; the most expensive layers come first, and
the same command goes on where an earlier run stopped. Remove the file, or give --anew, after
kernels have changed: figures of schedules that are still called the same are not measured again.
"""

from __future__ import annotations

from pathlib import Path

import click

import mdlc
from benchmarks.networks import NETWORKS
from mdlc.codegen.run.measure import find_machine
from mdlc.commands.console import err, progress
from mdlc.commands.tables import Form
from mdlc.commands.tune import print_tuning
from mdlc.compiler.words import Counting
from mdlc.tuning import REPEATS, layers_of, suited_top, tune

TABLES = Path(__file__).parent.parent / "codegen" / "plan" / "tuned"
# Building and measuring a layer, on one core of a current server.
SECONDS_PER_LAYER = 4.0


@click.command()
@click.option("--network", "networks", multiple=True, type=click.Choice(list(NETWORKS)))
@click.option("--target", default="host", show_default=True)
@click.option("--table", "path", type=click.Path(path_type=Path), help="Another file.")
@click.option("--runner", help="As of mdlc tune.")
@click.option("--top", type=int, help="As of mdlc tune.")
@click.option("--repeats", default=REPEATS, show_default=True, help="As of mdlc tune.")
@click.option("--minutes", default=10.0, show_default=True, help="Begin no layers after so long.")
@click.option("--anew", is_flag=True, help="Forget the table that is there.")
@click.option("-v", "--verbose", is_flag=True)
def main(
    networks: tuple[str, ...],
    target: str,
    path: Path | None,
    runner: str | None,
    top: int | None,
    repeats: int,
    minutes: float,
    anew: bool,
    verbose: bool,
) -> None:
    """Writes codegen/plan/tuned/TARGET.json and prints where it differs from the cost model."""
    plans = [
        mdlc.compile(NETWORKS[name]().SerializeToString(), target, tuned=()).plan
        for name in networks or NETWORKS
    ]
    isa = plans[0].isa
    layers = layers_of(plans)
    table = path or TABLES / f"{isa.name}.json"
    if anew:
        table.unlink(missing_ok=True)
    machine = find_machine(isa, runner)
    top = suited_top(machine) if top is None else top
    programs = sum(len(layer.worth_measuring(top)) for layer in layers)
    err().print(
        f"{len(layers)} layers, {programs} candidates; about "
        f"{len(layers) * SECONDS_PER_LAYER / 60:.0f} minutes on one core"
    )
    with progress(verbose) as tell:
        found = tune(
            layers,
            isa,
            table,
            machine,
            top=top,
            repeats=repeats,
            seconds=60 * minutes,
            progress=lambda done, total, text: tell(Counting("measuring layers", done, total)),
        )
    print_tuning(found, table, Form())


if __name__ == "__main__":
    main()
