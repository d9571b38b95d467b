"""1x1 convolutions of MobileNetV1 against the measured peak of a core, on every target here.

python -m benchmarks.pointwise [--repeats N]
"""

from __future__ import annotations

import click
import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

import mdlc
from mdlc.checks.benchmark import benchmark
from mdlc.codegen.isa.host import runs_here
from mdlc.codegen.isa.registry import isas

# Input channels, output channels, height and width.
LAYERS = ((32, 64, 112), (128, 128, 56), (256, 256, 28), (512, 512, 14), (1024, 1024, 7))


def pointwise_model(channels: int, filters: int, size: int) -> onnx.ModelProto:
    """One 1x1 convolution with ReLU, seeded weights."""
    generator = np.random.default_rng(0)
    weights = generator.uniform(-1, 1, (filters, channels, 1, 1)).astype(np.float32)
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        onnx.helper.make_node("Relu", ["c"], ["y"], name="relu"),
    ]
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "pointwise",
        [onnx.helper.make_tensor_value_info("x", kind, (1, channels, size, size))],
        [onnx.helper.make_tensor_value_info("y", kind, (1, filters, size, size))],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9
    )


@click.command()
@click.option("--repeats", default=200, show_default=True, help="Inferences per layer.")
def main(repeats: int) -> None:
    """Prints GFLOP/s and the share of the core's peak, measured in the same run."""
    table = Table("target", "layer", "us", "GFLOP/s", "peak", "of peak")
    for isa in isas().values():
        if not runs_here(isa):
            continue
        for channels, filters, size in LAYERS:
            compiled = mdlc.compile(pointwise_model(channels, filters, size), isa.name)
            result = benchmark(compiled, repeats)
            layer = next(layer for layer in result.layers if layer.macs)
            table.add_row(
                isa.name,
                f"{size}x{size}x{channels} to {filters}",
                f"{layer.microseconds:.1f}",
                f"{layer.gflops:.1f}",
                f"{result.peak_gflops:.1f}",
                f"{100 * layer.gflops / result.peak_gflops:.0f} %",
            )
    Console().print(table)


if __name__ == "__main__":
    main()
