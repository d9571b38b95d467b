"""AArch64: instructions and cache misses per inference of mdlc, ncnn and MNN, under qemu.

    python -m benchmarks.arm [--network NAME ...] [--runtime NAME ...] [--precision fp16] [--caches]
                             [--output DIR]
    python -m benchmarks.arm --int8 [--cpu neoverse-n1] ...
    python -m benchmarks.arm --fetch

Exact, so that they may be taken on any busy machine. The peers are their own aarch64 wheels in an
aarch64 Python; --fetch gets them, and nothing else here downloads. Every runtime does its second
inference in a process between two readings of the clock, at which a plugin of qemu writes down
its counts; float32 or half precision, one thread. What peers need is kept in the user's cache
folder.

With --int8 everything is in 8 bits, as each runtime's own tool or quantiser makes it
(benchmarks/runtimes.py says how): mdlc, LiteRT with XNNPACK, ncnn and MNN. mdlc is compiled for
what the core has; mdlc in float32 stands beside it. Outputs are compared with the float network's,
by signal over error.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import numpy as np
import onnx
import platformdirs
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import mdlc
from benchmarks import arm_machine, arm_worker
from benchmarks.cli import Missing, Plain
from benchmarks.int8_models import LEAST_SNR, calibration_inputs, snr
from benchmarks.networks import NETWORKS
from benchmarks.plots import bars
from benchmarks.runtimes import INT8_PEERS, PEERS, Array, example_input, missing
from mdlc.codegen.run import cache_model, instruction_counts
from mdlc.codegen.run.cache_model import CORES, Traffic
from mdlc.codegen.run.executable import Executable
from mdlc.codegen.run.instruction_counts import CLASSES
from mdlc.codegen.run.qemu_plugins import Reading, build, minus, readings, watch
from mdlc.codegen.run.toolchain import LocalToolchain, find_toolchain
from mdlc.precision.quantize import Quantize

RUNTIMES = ("mdlc", "ncnn", "mnn")
OURS = ("mdlc", "mdlc-float32")
INT8_RUNTIMES = (*OURS, *INT8_PEERS)
# The targets of mdlc in 8 bits on cores that have dot products of bytes.
DOT_TARGETS = {
    "neoverse-n1": "arm-neon+dotprod",
    "cortex-a76": "arm-neon+dotprod",
    "neoverse-v1": "arm-neon+i8mm",
}
# The package of a runtime, where it is called otherwise.
PACKAGE = {"litert": "ai_edge_litert"}
HALF = "-fp16"  # behind a peer's name: in half precision
Results = dict[str, dict[str, Reading]]  # network, runtime


def inference(lines: Sequence[str], word: str) -> Reading:
    """What the last inference of benchmarks/arm_worker.py took, less what a reading takes."""
    begin = max(i for i, line in enumerate(lines) if line.endswith(arm_worker.BEGIN))
    end = max(i for i, line in enumerate(lines) if line.endswith(arm_worker.END))
    # A runtime may read the clock itself, between the second reading and the last.
    first, second, *_, last = readings(lines[begin:end], word)
    return minus(minus(last, second), minus(second, first))


class PeerReadings:
    """Readings of peers, kept from run to run by everything that they depend on."""

    def __init__(self, cpu: str, again: bool, int8: bool = False) -> None:
        self.machine = arm_machine.find()
        self.cpu, self.again, self.int8 = cpu, again, int8
        self.file = Path(platformdirs.user_cache_dir("mdlc")) / "benchmarks" / "arm.json"
        self.kept = self._read_file()
        self.converted: set[tuple[str, Path]] = set()

    def _read_file(self) -> dict[str, list[int]]:
        if not self.file.exists():
            return {}
        kept: dict[str, list[int]] = json.loads(self.file.read_text())
        return kept

    def read(
        self, runtime: str, model: Path, plugin: str, word: str, options: list[str]
    ) -> Reading:
        """One inference's numbers from the file, or taken now."""
        digest = hashlib.sha256(model.read_bytes() + build(plugin).with_suffix(".c").read_bytes())
        name = runtime.removesuffix(HALF)
        version = self.machine.versions.get(PACKAGE.get(name, name))
        if version is None:
            raise Missing(f"{name}'s aarch64 package: `python -m benchmarks.arm --fetch`")
        words = [runtime, *(["int8"] if self.int8 else []), version, self.cpu, plugin, *options]
        key = " ".join([*words, digest.hexdigest()[:16]])
        if key not in self.kept or self.again:
            taken = list(self._take(runtime, model, plugin, word, options))
            # Another run may have added to the file meanwhile.
            self.kept = {**self.kept, **self._read_file(), key: taken}
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.write_text(json.dumps(self.kept, indent=1) + "\n")
        return tuple(self.kept[key])

    def _take(
        self, runtime: str, model: Path, plugin: str, word: str, options: list[str]
    ) -> Reading:
        packages, convert = (INT8_PEERS if self.int8 else PEERS)[runtime.removesuffix(HALF)]
        if convert is not None and (runtime, model) not in self.converted:
            if lacking := missing(packages):
                raise Missing(f"{runtime}'s converter: install {' and '.join(lacking)}")
            convert(model)
            self.converted.add((runtime, model))
        output = model.with_name(f"{runtime}.npy")
        command = self.machine.python(
            "benchmarks.arm_worker", [runtime, str(model), "2", str(output)]
        )
        environment = self.machine.environment()
        qemu = self.machine.qemu(self.cpu)
        reading = inference(watch(plugin, qemu, command, options, environment), word)
        _check(runtime, model, np.load(output), self.int8)
        return reading


def _check(runtime: str, model: Path, found: Array, int8: bool) -> None:
    """The peer computed this network, and not something else that it takes it for."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"input": example_input()})[0].reshape(-1)
    if int8:
        if not snr(found, expected) > LEAST_SNR:
            decibels = f"{snr(found, expected):.1f} dB of signal over error"
            raise click.ClickException(f"{runtime}'s output of {model.stem} has {decibels}")
        return
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not error < (3e-2 if runtime.endswith(HALF) else 1e-3):
        raise click.ClickException(f"{runtime}'s output of {model.stem} is off by {error:.1e}")


def toolchain(cpu: str, target: str = "arm-neon") -> LocalToolchain:
    """Clang, as phones' development kits have it, unless MDLC_CXX names a compiler."""
    from mdlc.codegen.isa.registry import find_isa

    found = find_toolchain(find_isa(target))
    own = "MDLC_CXX_" + target.replace("-", "_").upper()
    chosen = any(name in os.environ for name in ("MDLC_CXX", own))
    compiler, name = found.compiler, found.name
    if not chosen and shutil.which("clang++"):
        compiler, name = ("clang++", "--target=aarch64-linux-gnu"), "clang++"
    runner = tuple(cpu if found.runner[i - 1] == "-cpu" else w for i, w in enumerate(found.runner))
    return LocalToolchain(compiler, runner, name)


def counts_table(results: Results, limits: Mapping[str, int], int8: bool = False) -> Table:
    """Millions of instructions, fmla (sdot in 8 bits) in brackets; the ratio to the best peer."""
    runtimes = list(next(iter(results.values())))
    table = Table("network", "MAC / lanes", *runtimes, "mdlc to the best")
    shown_class = CLASSES.index("dot") if int8 else CLASSES.index("fmla")
    ratios = []
    for network, row in results.items():
        cells = [f"{r[0] / 1e6:.1f} ({r[shown_class] / 1e6:.1f})" for r in row.values()]
        ratio = to_best({runtime: reading[0] for runtime, reading in row.items()})
        if ratio is not None:
            ratios.append(ratio)
        shown = "" if ratio is None else f"{ratio:.3f}"
        table.add_row(network, f"{limits[network] / 1e6:.1f}", *cells, shown)
    if len(ratios) > 1:
        mean = float(np.exp(np.mean(np.log(ratios))))
        table.add_row("geometric mean", "", *["" for _ in runtimes], f"{mean:.3f}")
    return table


def to_best(row: Mapping[str, float]) -> float | None:
    """mdlc's figure over the least of the others'; None where either is missing."""
    others = [value for name, value in row.items() if name not in OURS]
    return row["mdlc"] / min(others) if "mdlc" in row and others else None


def traffic_table(results: Mapping[str, Mapping[str, Traffic]]) -> Table:
    """Megabytes by load and store instructions; thousands of missed lines on each core."""
    cores = list(next(iter(next(iter(results.values())).values())).misses)
    heads = [f"{core} {level}" for core in cores for level in ("L1", "L2", "to memory MB")]
    table = Table("network", "runtime", "read MB", "written MB", *heads)
    for network, row in results.items():
        for runtime, moved in row.items():
            cells = [f"{moved.bytes_read / 1e6:.1f}", f"{moved.bytes_written / 1e6:.1f}"]
            for misses in moved.misses.values():
                cells += [f"{misses.l1 / 1e3:.0f}", f"{misses.l2 / 1e3:.0f}"]
                cells.append(f"{misses.memory_bytes / 1e6:.1f}")
            table.add_row(network, runtime, *cells)
    return table


def layer_table(network: str, counts: Mapping[str, Reading], moved: Mapping[str, Traffic]) -> Table:
    """mdlc's layers: instructions, fmla, and missed lines where they were taken."""
    cores = list(next(iter(moved.values())).misses) if moved else []
    heads = [f"{core} {level}" for core in cores for level in ("L1", "L2")]
    table = Table("layer", "instructions", "fmla", "of fmla", *heads, title=network)
    for name, reading in counts.items():
        cells = [f"{reading[0] / 1e3:.0f} k", f"{reading[1] / 1e3:.0f} k"]
        cells.append(f"{reading[0] / reading[1]:.2f}" if reading[1] else "")
        for misses in moved[name].misses.values() if moved else ():
            cells += [f"{misses.l1}", f"{misses.l2}"]
        table.add_row(name, *cells)
    return table


@click.command(cls=Plain)
@click.option("--network", "networks", multiple=True, type=click.Choice(list(NETWORKS)))
@click.option("--runtime", "runtimes", multiple=True, type=click.Choice(INT8_RUNTIMES))
@click.option("--cpu", help="A core that qemu knows; default: cortex-a72, for fp16 neoverse-n1.")
@click.option("--int8", is_flag=True, help="In 8 bits, for what the core has.")
@click.option("--precision", type=click.Choice(["fp32", "fp16"]), default="fp32", show_default=True)
@click.option("--caches", is_flag=True, help="Cache misses too: some ten times slower.")
@click.option("--layers", is_flag=True, help="mdlc's layers too.")
@click.option("--again", is_flag=True, help="Take the peers' kept figures anew.")
@click.option("--fetch", is_flag=True, help="Get the peers' packages, and measure nothing.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for arm.json and .svg.")
def main(
    networks: tuple[str, ...],
    runtimes: tuple[str, ...],
    cpu: str | None,
    int8: bool,
    precision: str,
    caches: bool,
    layers: bool,
    again: bool,
    fetch: bool,
    output: Path | None,
) -> None:
    """Prints millions of instructions per inference; ratios below 1: mdlc executes fewer."""
    console = Console()
    if fetch:
        machine = arm_machine.fetch()
        console.print("fetched: " + ", ".join(f"{k} {v}" for k, v in machine.versions.items()))
        return
    arm_machine.emulator()
    known = INT8_RUNTIMES if int8 else RUNTIMES
    if unknown := set(runtimes) - set(known):
        raise click.BadParameter(f"{', '.join(unknown)} is for --int8")
    half = precision == "fp16"
    if half and int8:
        raise click.BadParameter("--int8 and --precision fp16 exclude each other")
    cpu = cpu or ("neoverse-n1" if half else "cortex-a72")
    runtimes = tuple(
        name if name == "mdlc" or not half else name + HALF for name in runtimes or known
    )
    target, lanes = ("arm-neon+fp16", 8) if half else ("arm-neon", 4)
    networks = networks or tuple(NETWORKS)
    peers = PeerReadings(cpu, again, int8) if set(runtimes) - set(OURS) else None
    if int8:
        target = DOT_TARGETS.get(cpu, target)
    counts: Results = {}
    moved: dict[str, dict[str, Traffic]] = {}
    limits = {}
    with tempfile.TemporaryDirectory() as folder, Progress(console=console, transient=True) as bar:
        task = bar.add_task("", total=len(networks) * len(runtimes))
        for network in networks:
            model = Path(folder) / f"{network}.onnx"
            onnx.save(NETWORKS[network](), model)
            compiled = mdlc.compile(model, target, precision=precision)
            limits[network] = compiled.plan.macs // lanes
            counts[network], moved[network] = {}, {}
            for runtime in runtimes:
                bar.update(task, description=f"{network} {runtime}", advance=1)
                if runtime in OURS:
                    low = int8 and runtime == "mdlc"
                    # Which integers weights become makes no difference to the count.
                    inputs = [{"input": x} for x in calibration_inputs()]
                    asked = Quantize(inputs, rounding="nearest") if low else None
                    compiled = mdlc.compile(model, target, quantize=asked, precision=precision)
                    executable = Executable(compiled.plan, toolchain=toolchain(cpu, target))
                    found = instruction_counts.count(executable)
                    counts[network][runtime] = found.total
                    parts = {}
                    if caches:
                        moved[network][runtime], parts = cache_model.measure(executable)
                    if layers:
                        console.print(layer_table(network, found.layers, parts))
                    continue
                assert peers is not None
                plugin, word = instruction_counts.PLUGIN, instruction_counts.WORD
                counts[network][runtime] = peers.read(runtime, model, plugin, word, [])
                if caches:
                    plugin, word = cache_model.PLUGIN, cache_model.WORD
                    options = [*cache_model.options(), f"from={arm_worker.SCHED_YIELD}"]
                    reading = peers.read(runtime, model, plugin, word, options)
                    moved[network][runtime] = cache_model.traffic(reading)
    console.print(counts_table(counts, limits, int8))
    if caches:
        console.print("Lines of 64 bytes in thousands; caches: " + "; ".join(map(_caches, CORES)))
        console.print(traffic_table(moved))
    if output is not None:
        save(output, counts, moved, limits)


def _caches(core: cache_model.CoreModel) -> str:
    sizes = f"L1D {core.l1_bytes >> 10} KiB {core.l1_ways}-way, L2 {core.l2_bytes >> 10} KiB"
    return f"{core.name} {sizes} {core.l2_ways}-way"


def save(
    folder: Path,
    counts: Results,
    moved: Mapping[str, Mapping[str, Traffic]],
    limits: Mapping[str, int],
) -> None:
    """arm.json and arm.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = {
        network: {
            "mac_over_lanes": limits[network],
            "instructions": {k: dict(zip(CLASSES, v, strict=True)) for k, v in row.items()},
            "memory": {
                runtime: {
                    "bytes_read": traffic.bytes_read,
                    "bytes_written": traffic.bytes_written,
                    "misses": {core: vars(misses) for core, misses in traffic.misses.items()},
                }
                for runtime, traffic in moved[network].items()
            },
        }
        for network, row in counts.items()
    }
    (folder / "arm.json").write_text(json.dumps(plain, indent=2) + "\n")
    heights = {n: {k: v[0] / limits[n] for k, v in row.items()} for n, row in counts.items()}
    bars(heights, "instructions per (multiply-adds / lanes)", folder / "arm.svg")


if __name__ == "__main__":
    main()
