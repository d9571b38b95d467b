"""The networks of the shared folder against ONNX Runtime, one thread each, interleaved.

    python -m benchmarks.onnxruntime_ratio [--rounds N] [--target TARGET]

Each round times both on the same input, one after the other; the table shows medians and the
median of the ratios. ONNX Runtime is what mdlc depends on anyway; the other peers are measured
by a benchmark of their own.
"""

from __future__ import annotations

import time

import click
import numpy as np
import onnxruntime
from rich.console import Console
from rich.progress import track
from rich.table import Table

import mdlc
from tests.shared_data import MODELS, model_inputs, model_path


@click.command()
@click.option("--rounds", default=15, show_default=True, help="Rounds per network.")
@click.option("--repeats", default=20, show_default=True, help="Inferences per round.")
@click.option("--target", default="host", show_default=True)
def main(rounds: int, repeats: int, target: str) -> None:
    """Prints milliseconds and ratios (below 1: mdlc is faster)."""
    table = Table("network", "mdlc ms", "ONNX Runtime ms", "ratio", "ratio, min..max")
    names = [name for name, model in MODELS.items() if not model.quantised]
    for name in track(names, transient=True):
        executable = mdlc.compile(model_path(name), target).build()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            str(model_path(name)), options, providers=["CPUExecutionProvider"]
        )
        (inputs,) = model_inputs(name)
        session.run(None, inputs)
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(executable.time(repeats, inputs).total / 1e6)
            times = []
            for _ in range(repeats):
                start = time.perf_counter()
                session.run(None, inputs)
                times.append((time.perf_counter() - start) * 1e3)
            theirs.append(float(np.median(times)))
        ratios = np.array(ours) / np.array(theirs)
        table.add_row(
            name,
            f"{np.median(ours):.3f}",
            f"{np.median(theirs):.3f}",
            f"{np.median(ratios):.2f}",
            f"{ratios.min():.2f}..{ratios.max():.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
