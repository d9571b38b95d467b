"""mdlc against ncnn, MNN, OpenVINO and ONNX Runtime, interleaved in one run.

    python -m benchmarks.peers [--network NAME ...] [--rounds N] [--output DIR]

Installs nothing: a peer whose package (ncnn and pnnx, MNN, openvino, onnxruntime) is missing is
named and left out. Every round times every runtime on the same network, one after the other, so
that a drift of the machine meets them all; the table has medians over the rounds, and the ratio
of mdlc to the best peer of each round. All run on one thread in float32.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import onnx
from rich.console import Console
from rich.progress import track
from rich.table import Table

import mdlc
from benchmarks.networks import NETWORKS

INPUT = np.random.default_rng(0).uniform(-1, 1, (1, 3, 224, 224)).astype(np.float32)
Timer = Callable[[int], float]  # median milliseconds of so many inferences


def _median_ms(run: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return float(np.median(times))


def mdlc_timer(model: Path, target: str) -> Timer:
    """The emitted class, timed inside its own process."""
    executable = mdlc.compile(model, target).build()
    return lambda repeats: executable.time(repeats, {"input": INPUT}).total / 1e6


def onnxruntime_timer(model: Path) -> Timer:
    """ONNX Runtime, CPU provider."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return lambda repeats: _median_ms(lambda: session.run(None, {"input": INPUT}), repeats)


def openvino_timer(model: Path) -> Timer:
    """OpenVINO, CPU device, latency hint, float32."""
    import openvino

    config = {
        "INFERENCE_NUM_THREADS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = openvino.Core().compile_model(str(model), "CPU", config)
    request = compiled.create_infer_request()
    return lambda repeats: _median_ms(lambda: request.infer({"input": INPUT}), repeats)


def mnn_timer(model: Path) -> Timer:
    """MNN's session interface, precision high."""
    import MNN

    converted = model.with_suffix(".mnn")
    arguments = ["-f", "ONNX", "--modelFile", str(model), "--MNNModel", str(converted)]
    command = [str(Path(sys.executable).with_name("mnnconvert")), *arguments, "--bizCode", "mdlc"]
    subprocess.run(command, check=True, capture_output=True)
    interpreter = MNN.Interpreter(str(converted))
    session = interpreter.createSession({"numThread": 1, "precision": "high"})
    given = interpreter.getSessionInput(session)
    host = MNN.Tensor(
        (1, 3, 224, 224), MNN.Halide_Type_Float, INPUT, MNN.Tensor_DimensionType_Caffe
    )
    given.copyFrom(host)
    return lambda repeats: _median_ms(lambda: interpreter.runSession(session), repeats)


def ncnn_timer(model: Path) -> Timer:
    """ncnn, converted by pnnx, float32 storage and arithmetic."""
    import ncnn

    arguments = [
        str(Path(sys.executable).with_name("pnnx")),
        str(model),
        "inputshape=[1,3,224,224]",
        "fp16=0",
    ]
    subprocess.run(arguments, check=True, capture_output=True, cwd=model.parent)
    net = ncnn.Net()
    net.opt.num_threads = 1
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    net.load_param(str(model.with_name(f"{model.stem}.ncnn.param")))
    net.load_model(str(model.with_name(f"{model.stem}.ncnn.bin")))
    mat = ncnn.Mat(INPUT[0])

    def run() -> object:
        extractor = net.create_extractor()
        extractor.input("in0", mat)
        return extractor.extract("out0")

    return lambda repeats: _median_ms(run, repeats)


PEERS: dict[str, tuple[tuple[str, ...], Callable[[Path], Timer]]] = {
    "onnxruntime": (("onnxruntime",), onnxruntime_timer),
    "openvino": (("openvino",), openvino_timer),
    "ncnn": (("ncnn", "pnnx"), ncnn_timer),
    "mnn": (("MNN",), mnn_timer),
}


def plot(results: dict[str, dict[str, float]], path: Path) -> None:
    """Bars of milliseconds relative to mdlc, a group for each network."""
    import matplotlib.pyplot as plt

    names = list(results)
    runtimes = list(next(iter(results.values())))
    width = 0.8 / len(runtimes)
    figure, axes = plt.subplots(figsize=(9, 4))
    for index, runtime in enumerate(runtimes):
        heights = [results[name].get(runtime, 0.0) / results[name]["mdlc"] for name in names]
        axes.bar([i + index * width for i in range(len(names))], heights, width, label=runtime)
    axes.set_xticks([i + 0.4 - width / 2 for i in range(len(names))], names)
    axes.set_ylabel("time relative to mdlc")
    axes.axhline(1, color="black", linewidth=0.6)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)


@click.command()
@click.option("--network", "networks", multiple=True, type=click.Choice(list(NETWORKS)))
@click.option("--target", default="host", show_default=True)
@click.option("--rounds", default=15, show_default=True)
@click.option("--repeats", default=10, show_default=True, help="Inferences per round and runtime.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for peers.json and .svg.")
def main(
    networks: tuple[str, ...], target: str, rounds: int, repeats: int, output: Path | None
) -> None:
    """Prints milliseconds of every runtime; ratios below 1 mean that mdlc is faster."""
    console = Console()
    present = {}
    for name, (packages, prepare) in PEERS.items():
        missing = [package for package in packages if importlib.util.find_spec(package) is None]
        if missing:
            console.print(f"{name} is left out: install {' and '.join(missing)}")
        else:
            present[name] = prepare
    table = Table("network", "mdlc ms", *(f"{name} ms" for name in present), "ratio to the best")
    results: dict[str, dict[str, float]] = {}
    for network in networks or tuple(NETWORKS):
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / f"{network}.onnx"
            onnx.save(NETWORKS[network](), model)
            timers = {"mdlc": mdlc_timer(model, target)}
            timers.update((name, prepare(model)) for name, prepare in present.items())
            for timer in timers.values():
                timer(2)
            times: dict[str, list[float]] = {name: [] for name in timers}
            for _ in track(range(rounds), description=network, transient=True):
                for name, timer in timers.items():
                    times[name].append(timer(repeats))
        best = np.min([times[name] for name in present], axis=0) if present else np.nan
        ratio = float(np.median(np.array(times["mdlc"]) / best))
        results[network] = {name: float(np.median(values)) for name, values in times.items()}
        table.add_row(
            network, *(f"{value:.2f}" for value in results[network].values()), f"{ratio:.2f}"
        )
        results[network]["ratio"] = ratio
    console.print(table)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / "peers.json").write_text(json.dumps(results, indent=2) + "\n")
        plot({n: {k: v for k, v in r.items() if k != "ratio"} for n, r in results.items()},
             output / "peers.svg")  # fmt: skip


if __name__ == "__main__":
    main()
