"""Cycles of the emitted AArch64 code's hot loops, by llvm-mca, against their multiply-adds.

    python -m benchmarks.mca [--network NAME ...] [--mca PROGRAM] [--all]

A loop's first bound is what its fmla instructions alone would take: a Cortex-A55 starts one of 128
bits a cycle, a Cortex-A76 two (Arm's software optimisation guides of the two cores). The second is
what the busiest unit takes, be it of multiply-adds, other arithmetic, loads or stores, or decoding:
llvm-mca's block reciprocal throughput. llvm-mca knows no caches, and gives no cost to memory beyond
L1.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Column, Table

import mdlc
from benchmarks import assembly
from benchmarks.cli import Missing, Plain
from benchmarks.networks import NETWORKS
from mdlc.codegen.isa.registry import find_isa

ITERATIONS = 400


@dataclass(frozen=True)
class Model:
    """One of LLVM's scheduling models, as a stand-in for a core.

    Attributes:
        cpu: llvm-mca's -mcpu; substitute: a multiply-add's mnemonic in place of fmla, or "".
    """

    cpu: str
    substitute: str = ""

    def __str__(self) -> str:
        return self.cpu + (f" ({self.substitute} for fmla)" if self.substitute else "")


@dataclass(frozen=True)
class Core:
    """A core, its fmla of 128 bits per cycle, and the models that may stand for it."""

    name: str
    fmla_rate: float
    models: tuple[Model, ...]


# LLVM's Cortex-A55 starts two fmla of 128 bits a cycle; the core has two pipes of 64 bits, which
# newer versions know of mla (the integers' multiply-add, of the same form and latency). LLVM takes
# a Cortex-A76 for a Cortex-A57; the Neoverse N1 is the same core for servers.
CORES = (
    Core("cortex-a55", 1, (Model("cortex-a55"), Model("cortex-a55", "mla"))),
    Core("cortex-a76", 2, (Model("cortex-a76"), Model("neoverse-n1"))),
)


@dataclass(frozen=True)
class Loop:
    """A hot loop: the microkernel that it is from and its instructions."""

    name: str
    instructions: tuple[str, ...]

    @property
    def fmlas(self) -> int:
        """Multiply-adds of 128 bits."""
        return sum(bool(re.match(r"fmla\s+v\d+\.(4s|2d)", line)) for line in self.instructions)


def instructions(body: str) -> tuple[str, ...]:
    """The instructions of a stretch of assembly, without labels, directives and comments."""
    lines = (re.split(r"//|;", line)[0].strip() for line in body.splitlines())
    return tuple(line for line in lines if line and not re.match(r"[.#]|\S+:", line))


def find_program(wanted: str | None) -> str:
    """The newest llvm-mca: its models of these cores have improved over the years."""
    if wanted:
        if shutil.which(wanted) is None:
            raise Missing(f"--mca: there is no program {wanted}")
        return wanted
    for name in [*(f"llvm-mca-{version}" for version in range(40, 10, -1)), "llvm-mca"]:
        if found := shutil.which(name):
            return found
    raise Missing("llvm-mca is missing: install llvm-19 or newer")


@dataclass(frozen=True)
class Cycles:
    """Cycles of one trip over a loop: in the steady state, and of its busiest unit alone."""

    taken: float
    units: float


def cycles(program: str, model: Model, loops: Sequence[Loop]) -> list[Cycles]:
    """Cycles of each loop."""
    parts = []
    for index, loop in enumerate(loops):
        lines = list(loop.instructions)
        if model.substitute:
            lines = [re.sub(r"^fmla\b", model.substitute, line) for line in lines]
        parts += [f"# LLVM-MCA-BEGIN loop{index}", "1:", *lines, f"# LLVM-MCA-END loop{index}"]
    command = [program, "-mtriple=aarch64-linux-gnu", f"-mcpu={model.cpu}"]
    command += [f"-iterations={ITERATIONS}", "-"]
    done = subprocess.run(
        command, input="\n".join(parts) + "\n", capture_output=True, text=True, check=False
    )
    found = parse(done.stdout)
    if done.returncode or len(found) != len(loops):
        raise click.ClickException(f"llvm-mca failed: {done.stderr.strip()[-300:]}")
    return found


def parse(report: str) -> list[Cycles]:
    """Cycles of one iteration of each region in a report."""
    pattern = r"^Iterations:\s+(\d+)$.*?^Total Cycles:\s+(\d+)$.*?^Block RThroughput:\s+([\d.]+)$"
    found = re.findall(pattern, report, re.M | re.S)
    return [Cycles(int(total) / int(count), float(units)) for count, total, units in found]


def choose_model(program: str, core: Core) -> tuple[Model, float]:
    """The first model with the core's fmla rate, or else the first with its own rate."""
    lines = tuple(f"fmla v{i}.4s, v30.4s, v31.s[0]" for i in range(24))
    rates = []
    for model in core.models:
        (took,) = cycles(program, model, [Loop("rate", lines)])
        rates.append(len(lines) / took.taken)
        if abs(rates[-1] / core.fmla_rate - 1) < 0.02:
            return model, core.fmla_rate
    return core.models[0], rates[0]


def hot_loops(networks: Sequence[str], folder: Path) -> list[Loop]:
    """The loops with multiply-adds of every microkernel that the networks call."""
    compilers = assembly.compilers("arm-neon")
    if not compilers:
        raise Missing("a compiler for AArch64 is missing: install clang or g++-aarch64-linux-gnu")
    isa = find_isa("arm-neon")
    codes = []
    for network in networks:
        codes += assembly.layers(mdlc.compile(NETWORKS[network](), isa.name, name="Net").plan)
    found = list(assembly.probes(codes))
    loops = []
    for number, text in assembly.assembly(isa, found, compilers[0], folder).items():
        name = found[number].microkernel.name
        bodies = [instructions(body) for body in assembly.innermost_loops(text)]
        loops += [Loop(name, body) for body in bodies if Loop(name, body).fmlas]
    return loops


@click.command(cls=Plain)
@click.option("--network", "networks", multiple=True, type=click.Choice(list(NETWORKS)))
@click.option("--mca", help="An llvm-mca, instead of the newest on the PATH.")
@click.option("--all", "every", is_flag=True, help="Loops with a single accumulator row too.")
def main(networks: tuple[str, ...], mca: str | None, every: bool) -> None:
    """Prints cycles and the share over the bound of each hot loop."""
    console = Console()
    program = find_program(mca)
    with tempfile.TemporaryDirectory() as folder:
        loops = hot_loops(networks or tuple(NETWORKS), Path(folder))
    # Loops of few multiply-adds are those of rests; they wait for latencies.
    loops = sorted(
        (loop for loop in loops if every or loop.fmlas >= 16), key=lambda loop: loop.name
    )
    columns: list[list[str]] = []
    heads, notes = [], []
    summary = []
    for core in CORES:
        model, rate = choose_model(program, core)
        notes.append(f"{core.name}: LLVM's {model}, {rate:.2f} fmla a cycle")
        took = cycles(program, model, loops)
        bounds = [loop.fmlas / rate for loop in loops]
        # The model's own rates may be below the core's.
        units = [max(spent.units, bound) for spent, bound in zip(took, bounds, strict=True)]
        heads += [f"{core.name} cycles", "of fmla", "of units"]
        columns.append([f"{spent.taken:.1f}" for spent in took])
        within = []
        for limits in (bounds, units):
            over = [spent.taken / limit for spent, limit in zip(took, limits, strict=True)]
            columns.append([f"{share:.2f}" for share in over])
            within.append(sum(share <= 1.1 for share in over))
        summary.append(
            f"{core.name}: {within[0]} of {len(loops)} loops within 10 % of their fmla, "
            f"{within[1]} of their busiest unit"
        )
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"LLVM version (\S+)", version.stdout)
    console.print(f"llvm-mca {found[1] if found else '?'}; " + "; ".join(notes))
    table = Table(Column("microkernel", no_wrap=True), "instructions", "fmla", *heads)
    for index, loop in enumerate(loops):
        cells = [column[index] for column in columns]
        table.add_row(loop.name, str(len(loop.instructions)), str(loop.fmlas), *cells)
    console.print(table)
    console.print("\n".join(summary))


if __name__ == "__main__":
    main()
