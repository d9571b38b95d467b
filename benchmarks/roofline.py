"""Each layer of a network against the machine's limit.

    python -m benchmarks.roofline MODEL [--target T] [--repeats N] [--output DIR]

MODEL is a network of benchmarks/networks.py or an ONNX file. Where the target runs natively, a
layer's limit is the larger of its multiply-adds at the measured peak of a core and its bytes
(inputs, weights, output) at the measured bandwidth of reading as many bytes as the class touches.
Where it runs in an emulator, the limit is one instruction for as many multiply-adds as a vector
has lanes, and the layer is counted in instructions. Winograd's layers may beat their limit: it is
that of the direct convolution.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

import mdlc
from benchmarks.arm import toolchain as arm_toolchain
from benchmarks.cli import Plain, model_of
from benchmarks.plots import roofline as plot
from mdlc.api import CompiledModel
from mdlc.checks.benchmark import measure_peak
from mdlc.codegen.isa.registry import isas
from mdlc.codegen.kernel import Step
from mdlc.codegen.plan.plan import Plan
from mdlc.codegen.run import instruction_counts
from mdlc.codegen.run.executable import Executable
from mdlc.codegen.run.toolchain import LocalToolchain, find_toolchain


@dataclass(frozen=True)
class Layer:
    """A layer and its limit, both in `unit`s of the table: microseconds or instructions.

    Attributes:
        macs: multiply-adds of the direct layer; nbytes: of inputs, weights and output.
        spent: measured; compute, memory: limits by multiply-adds and by bytes.
    """

    name: str
    kernel: str
    schedule: str
    macs: int
    nbytes: int
    spent: float
    compute: float
    memory: float

    @property
    def limit(self) -> float:
        """What the layer cannot go below."""
        return max(self.compute, self.memory)

    @property
    def share(self) -> float:
        """The limit over what was spent: 1 is perfect."""
        return self.limit / self.spent if self.spent else 0.0

    @property
    def intensity(self) -> float:
        """Multiply-adds per byte."""
        return self.macs / self.nbytes if self.nbytes else 0.0


def units(plan: Plan) -> list[tuple[str, str, str, list[Step]]]:
    """Name, kernel, schedule and steps of what is timed at once: a layer, or a group of them."""
    found = []
    for unit in plan.units():
        steps = [plan.steps[index] for index in unit]
        group, first, last = plan.row_group_of(unit[0]), steps[0], steps[-1]
        if group is None:
            found.append((first.name, first.kernel.name, str(first.schedule), steps))
        else:
            name = f"{first.name} to {last.name}"
            found.append((name, "row-fused group", f"bands of {group.rows}", steps))
    return found


def work(steps: Sequence[Step]) -> tuple[int, int]:
    """Multiply-adds of a layer or group, and the bytes that it has to touch."""
    macs = sum(
        step.node.op.cost([s.type for s in step.node.inputs], step.node.type).macs for step in steps
    )
    residuals = [view for step in steps for view in step.inputs[1:]]
    views = [steps[0].inputs[0], *residuals, steps[-1].output]
    nbytes = sum(view.type.nbytes for view in views)
    return macs, nbytes + sum(array.nbytes for step in steps for array in step.weights.values())


def timed_layers(compiled: CompiledModel, repeats: int) -> tuple[list[Layer], float, float]:
    """Layers in microseconds, the peak in GFLOP/s and the bandwidth in GB/s."""
    plan = compiled.plan
    executable = compiled.build()
    peak = measure_peak(plan.isa, executable.toolchain)
    rate = bandwidth(
        executable.toolchain, plan.isa.toolchain.flags, plan.arena_bytes + plan.weight_bytes
    )
    timing = executable.time(repeats)
    layers = []
    for name, kernel, schedule, steps in units(plan):
        macs, nbytes = work(steps)
        compute, memory = 2 * macs / peak / 1e3, nbytes / rate / 1e3
        spent = sum(timing.layers[step.name] for step in steps) / 1e3
        layers.append(Layer(name, kernel, schedule, macs, nbytes, spent, compute, memory))
    return layers, peak, rate


def counted_layers(compiled: CompiledModel) -> list[Layer]:
    """Layers in instructions, for a target that runs in an emulator."""
    plan = compiled.plan
    executable = Executable(plan, toolchain=arm_toolchain(plan.isa.toolchain.qemu_cpu))
    counts = instruction_counts.count(executable)
    layers = []
    for name, kernel, schedule, steps in units(plan):
        macs, nbytes = work(steps)
        spent = sum(counts.layers[step.name][0] for step in steps)
        compute = macs / plan.isa.f32.lanes
        layers.append(Layer(name, kernel, schedule, macs, nbytes, spent, compute, 0.0))
    return layers


def bandwidth(toolchain: LocalToolchain, flags: Sequence[str], nbytes: int) -> float:
    """GB/s at which one core reads so many bytes again and again."""
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch) / "bandwidth"
        source = Path(__file__).with_name("bandwidth.cpp")
        toolchain.compile([source], program, ["-std=c++17", "-O3", *flags])
        done = subprocess.run(
            [str(program), str(nbytes)], capture_output=True, text=True, check=True
        )
    return float(done.stdout)


def table_of(layers: Sequence[Layer], unit: str) -> Table:
    """A row for each layer, and the sum."""
    table = Table(
        "layer", "kernel", "schedule", "M MAC", "MAC/byte", unit, "limit", "bound by", "%"
    )
    scale = 1e3 if unit == "k instructions" else 1.0
    for layer in layers:
        bound = "memory" if layer.memory > layer.compute else "FMA" if layer.macs else ""
        table.add_row(
            layer.name,
            layer.kernel,
            layer.schedule,
            f"{layer.macs / 1e6:.1f}",
            f"{layer.intensity:.1f}",
            f"{layer.spent / scale:.1f}",
            f"{layer.limit / scale:.1f}",
            bound,
            f"{100 * layer.share:.0f}",
        )
    spent, limit = sum(layer.spent for layer in layers), sum(layer.limit for layer in layers)
    sums = [f"{spent / scale:.1f}", f"{limit / scale:.1f}", "", f"{100 * limit / spent:.0f}"]
    macs = sum(layer.macs for layer in layers)
    table.add_row("all", "", "", f"{macs / 1e6:.1f}", "", *sums)
    return table


@click.command(cls=Plain)
@click.argument("model")
@click.option("--target", default="host", show_default=True)
@click.option("--repeats", default=50, show_default=True, type=click.IntRange(min=1))
@click.option("--output", type=click.Path(path_type=Path), help="Folder for a .json and a .svg.")
def main(model: str, target: str, repeats: int, output: Path | None) -> None:
    """Prints what each layer takes, its limit, and the share of the limit over it."""
    console = Console()
    if target != "host" and target not in isas():
        raise click.BadParameter(f"no target {target}; there are host, {', '.join(isas())}")
    compiled = mdlc.compile(model_of(model), target)
    isa = compiled.plan.isa
    if find_toolchain(isa).runner:
        layers, unit = counted_layers(compiled), "k instructions"
        console.print(f"{isa.name} under qemu: limit of one instruction for {isa.f32.lanes} MAC")
        peak, rate = 2.0 * isa.f32.lanes, None
    else:
        layers, peak, rate = timed_layers(compiled, repeats)
        unit = "us"
        console.print(f"{isa.name}: peak {peak:.0f} GFLOP/s, memory {rate:.1f} GB/s, one thread")
    console.print(table_of(layers, unit))
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        stem = f"roofline-{Path(model).stem}-{isa.name}"
        plain = {"unit": unit, "peak": peak, "bandwidth": rate, "layers": list(map(asdict, layers))}
        (output / f"{stem}.json").write_text(json.dumps(plain, indent=2) + "\n")
        points = [(x.intensity, 2 * x.macs / x.spent) for x in layers if x.macs and x.spent]
        if rate is None:
            plot(points, peak, None, "flops per instruction", output / f"{stem}.svg")
        else:
            points = [(x, y / 1e3) for x, y in points]
            plot(points, peak, rate, "GFLOP/s", output / f"{stem}.svg")


if __name__ == "__main__":
    main()
