"""mdlc against ncnn, MNN, OpenVINO and ONNX Runtime, interleaved in one run.

    python -m benchmarks.peers [--network NAME ...] [--target T] [--threads N] [--output DIR]
    python -m benchmarks.peers --int8 --target x86-avx512-vnni ...

Installs nothing: a peer whose package (ncnn and pnnx, MNN, openvino, onnxruntime) is missing is
named and left out. Every runtime has a process of its own, stopped while another's is timed.
Every round times every runtime on the same network, one after the other, so that a drift of the
machine meets them all; the table has medians over the rounds, and the median of the ratios to the
best peer of each round. float32; every output is checked against ONNX Runtime's.

Memory is the peak of resident pages, mapped files included. mdlc's is that of a C++ program with
the class as it is shipped. A peer's process is a Python: from its peak that of a Python with NumPy
alone is taken off, which favours the peer where it reuses pages; the raw figure is in peers.json.

With --target x86-avx2 the peers stay with AVX2: OpenVINO is told to, ONNX Runtime and ncnn run
from copies to which the processor seems to have nothing more (no_avx512.py), and MNN's wheel has
nothing more.

With --int8 everything is in 8 bits: the peers run what ONNX Runtime's quantiser made (QDQ), mdlc
what its own did with the same inputs; mdlc in float32 stands beside them, on the target's float
kernels. Outputs are compared with the float network's, by signal over error.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import onnx
import onnxruntime
from rich.console import Console
from rich.progress import track
from rich.table import Table

import mdlc
from benchmarks import no_avx512
from benchmarks.cli import Plain
from benchmarks.int8_models import LEAST_SNR, calibration_inputs, quantize_onnx, snr
from benchmarks.networks import NETWORKS
from benchmarks.plots import bars
from benchmarks.processes import Worker
from benchmarks.runtimes import PEERS, Array, example_input, missing
from mdlc.codegen.cpp.kernels_file import source_files
from mdlc.codegen.isa.registry import find_isa, isas
from mdlc.codegen.run.toolchain import BUILD_FLAGS, find_toolchain
from mdlc.compiler.errors import MdlcError
from mdlc.precision.quantize import Quantize

OURS = ("mdlc", "mdlc-float32")
INT8_PEERS = ("onnxruntime", "openvino")
WIDE_PEERS = ("onnxruntime", "ncnn")
"""Those that use AVX-512 wherever the processor has it."""


@dataclass(frozen=True)
class Measured:
    """One runtime on one network.

    Attributes:
        rounds: milliseconds, the median inference of each round.
        peak: kilobytes, resident at the most; baseline: of the process without the runtime.
    """

    rounds: tuple[float, ...]
    peak: int
    baseline: int

    @property
    def milliseconds(self) -> float:
        """Median over the rounds."""
        return float(np.median(self.rounds))

    @property
    def megabytes(self) -> float:
        """Peak resident memory that the runtime is answerable for."""
        return (self.peak - self.baseline) / 1024


def ratio_to_best(row: Mapping[str, Measured]) -> float | None:
    """Median over the rounds of mdlc's time over the best peer's; None without peers."""
    others = [measured.rounds for name, measured in row.items() if name not in OURS]
    if not others or "mdlc" not in row:
        return None
    return float(np.median(np.array(row["mdlc"].rounds) / np.min(others, axis=0)))


def float_ratio(row: Mapping[str, Measured]) -> float:
    """Median over the rounds of mdlc's time in float32 over that in 8 bits."""
    exact, low = (np.array(row[name].rounds) for name in ("mdlc-float32", "mdlc"))
    return float(np.median(exact / low))


def in_int8() -> Quantize:
    """What mdlc is asked for in 8 bits."""
    # Which integers weights become makes no difference to speed.
    return Quantize([{"input": x} for x in calibration_inputs()], rounding="nearest")


def mdlc_worker(
    name: str, model: Path, target: str, threads: int, quantize: Quantize | None = None
) -> Worker:
    """The emitted class, built as an app would, without instruments."""
    compiled = mdlc.compile(model, target, name="Net", threads=threads, quantize=quantize)
    isa = compiled.plan.isa
    toolchain = find_toolchain(isa)
    if toolchain.runner:
        raise MdlcError(
            f"{isa.name} runs in an emulator here, whose times say nothing",
            node="--target",
            hint="python -m benchmarks.arm counts instructions",
        )
    folder = model.parent / name
    folder.mkdir()
    for file, content in compiled.files().items():
        (folder / file).write_bytes(content)
    source = Path(__file__).with_name("peer_runner.cpp")
    flags = [*BUILD_FLAGS, f"-I{folder}"]
    if compiled.plan.threads > 1:
        flags += ["-DNET_THREADS", "-pthread"]
    sources = [source, *(folder / each for each in source_files(compiled.plan))]
    toolchain.compile(sources, folder / "runner", flags)
    (port,) = compiled.plan.inputs
    (folder / "input").write_bytes(port.type.to_physical(example_input()).tobytes())
    files = [str(folder / "Net.weights"), str(folder / "input"), str(threads)]
    return Worker(name, [str(folder / "runner"), *files], folder / "errors")


def peer_worker(name: str, model: Path, target: str, threads: int) -> Worker:
    """A peer in a Python of its own."""
    convert = PEERS[name][1]
    if convert is not None:
        convert(model)
    environment = dict(os.environ)
    if find_isa(target).f32.lanes == 8:  # the peers get no wider vectors either
        environment["ONEDNN_MAX_CPU_ISA"] = "AVX2"
        if name in WIDE_PEERS:
            environment |= no_avx512.environment(name, model.parent / f"{name}-avx2")
    command = [sys.executable, "-m", "benchmarks.peer_worker", name, str(model), str(threads)]
    return Worker(name, command, model.parent / f"{name}.errors", environment)


def check(worker: Worker, expected: Array, folder: Path, int8: bool) -> None:
    """The runtime computes this network."""
    file = folder / f"{worker.name}.raw"
    worker.ask(f"output {file}")
    found = np.fromfile(file, np.float32)
    if int8:
        if not snr(found, expected) > LEAST_SNR:
            raise click.ClickException(
                f"{worker.name}'s output has {snr(found, expected):.1f} dB of signal over error"
            )
        return
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not error < 1e-3:
        raise click.ClickException(f"{worker.name}'s output is off by {error:.1e}")


def measure(
    network: str,
    runtimes: Sequence[str],
    target: str,
    threads: int,
    rounds: int,
    repeats: int,
    int8: bool = False,
) -> dict[str, Measured]:
    """Every runtime on one network."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        model = Path(name) / f"{network}.onnx"
        onnx.save(NETWORKS[network](), model)
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        expected = session.run(None, {"input": example_input()})[0].reshape(-1)
        del session
        workers = []
        theirs = model.with_suffix(".qdq.onnx") if int8 else model
        if int8 and set(runtimes) - set(OURS):
            quantize_onnx(model, theirs)
        for runtime in runtimes:
            if runtime in OURS:
                asked = in_int8() if int8 and runtime == "mdlc" else None
                start = mdlc_worker(runtime, model, target, threads, asked)
            else:
                start = peer_worker(runtime, theirs, target, threads)
            worker = stack.enter_context(start)
            check(worker, expected, model.parent, int8)
            workers.append(worker)
        times: dict[str, list[float]] = {runtime: [] for runtime in runtimes}
        for number in track(range(rounds), description=network, transient=True):
            # Another one begins each round, so that none always follows the same.
            shift = number % len(workers)
            for worker in workers[shift:] + workers[:shift]:
                times[worker.name].append(float(worker.ask(f"time {repeats}")) / 1e6)
        results = {}
        for worker in workers:
            baseline = 0 if worker.name in OURS else int(worker.ask("baseline"))
            peak = int(worker.ask("memory"))
            results[worker.name] = Measured(tuple(times[worker.name]), peak, baseline)
        return results


def time_table(results: Mapping[str, Mapping[str, Measured]]) -> Table:
    """Milliseconds of every runtime, and the ratio of mdlc to the best peer."""
    runtimes = list(next(iter(results.values())))
    both = set(OURS) <= set(runtimes)
    more = ("float32 to int8",) if both else ()
    table = Table("network", *(f"{name} ms" for name in runtimes), "ratio to the best", *more)
    for network, row in results.items():
        ratio = ratio_to_best(row)
        cells = [f"{measured.milliseconds:.2f}" for measured in row.values()]
        cells.append("" if ratio is None else f"{ratio:.3f}")
        table.add_row(network, *cells, *([f"{float_ratio(row):.2f}"] if both else []))
    return table


def memory_table(results: Mapping[str, Mapping[str, Measured]]) -> Table:
    """Peak resident megabytes; of a peer's process in brackets."""
    runtimes = list(next(iter(results.values())))
    table = Table("network", *(f"{name} MB" for name in runtimes))
    for network, row in results.items():
        cells = [
            f"{m.megabytes:.1f}" + (f" ({m.peak / 1024:.0f})" if m.baseline else "")
            for m in row.values()
        ]
        table.add_row(network, *cells)
    return table


def save(
    folder: Path, results: Mapping[str, Mapping[str, Measured]], settings: Mapping[str, object]
) -> None:
    """peers.json and peers.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = {
        network: {
            "ratio_to_best": ratio_to_best(row),
            "runtimes": {
                name: {
                    "milliseconds": m.milliseconds,
                    "rounds": m.rounds,
                    "peak_kilobytes": m.peak,
                    "baseline_kilobytes": m.baseline,
                }
                for name, m in row.items()
            },
        }
        for network, row in results.items()
    }
    text = json.dumps({**settings, "networks": plain}, indent=2)
    (folder / "peers.json").write_text(text + "\n")
    first = {network: next(iter(row.values())).milliseconds for network, row in results.items()}
    heights = {
        network: {name: m.milliseconds / first[network] for name, m in row.items()}
        for network, row in results.items()
    }
    bars(heights, "time relative to the first", folder / "peers.svg")


@click.command(cls=Plain)
@click.option("--network", "networks", multiple=True, type=click.Choice(list(NETWORKS)))
@click.option("--runtime", "runtimes", multiple=True, type=click.Choice([*OURS, *PEERS]))
@click.option("--target", default="host", show_default=True)
@click.option("--int8", is_flag=True, help="In 8 bits.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 64))
@click.option("--rounds", default=15, show_default=True, type=click.IntRange(min=1))
@click.option("--repeats", default=10, show_default=True, type=click.IntRange(min=1),
              help="Inferences per round and runtime.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), help="Folder for peers.json and .svg.")
def main(
    networks: tuple[str, ...],
    runtimes: tuple[str, ...],
    target: str,
    int8: bool,
    threads: int,
    rounds: int,
    repeats: int,
    output: Path | None,
) -> None:
    """Prints milliseconds of every runtime; ratios below 1 mean that mdlc is faster."""
    console = Console()
    if target != "host" and target not in isas():
        raise click.BadParameter(f"no target {target}; there are host, {', '.join(isas())}")
    if not Path("/proc/self/status").exists():
        raise click.ClickException("this benchmark reads /proc: it needs Linux")
    present = []
    for name in runtimes or ((*OURS, *INT8_PEERS) if int8 else ("mdlc", *PEERS)):
        if int8 and name in set(PEERS) - set(INT8_PEERS):
            raise click.BadParameter(f"{name} does not read models of 8 bits in ONNX")
        lacking = missing(PEERS[name][0]) if name in PEERS else []
        if lacking:
            console.print(f"{name} is left out: pip install {' '.join(lacking)}")
        else:
            present.append(name)
    results = {}
    for network in networks or tuple(NETWORKS):
        results[network] = measure(network, present, target, threads, rounds, repeats, int8)
    console.print(f"{target}, {threads} thread{'s' if threads > 1 else ''}, medians")
    console.print(time_table(results))
    console.print("Peak resident memory; in brackets with Python and NumPy")
    console.print(memory_table(results))
    if output is not None:
        settings = {"target": target, "threads": threads, "repeats": repeats, "int8": int8}
        save(output, results, settings)


if __name__ == "__main__":
    main()
