"""1x1 convolutions of MobileNets, pruned: what is chosen, and what it costs beside the dense form.

    python -m benchmarks.sparse --target arm-neon      AArch64 instructions, in qemu
    python -m benchmarks.sparse --target host          microseconds, the best of five medians

Weights are random, pruned by magnitude, so that the zeros of unstructured pruning lie anywhere.
"""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

from benchmarks.pointwise import pointwise_model
from mdlc.codegen.isa.base import Isa
from mdlc.codegen.isa.registry import find_isa
from mdlc.codegen.kernel import Schedule, candidates
from mdlc.codegen.plan.lowering import lower
from mdlc.codegen.run.executable import Executable
from mdlc.codegen.run.instruction_counts import count
from mdlc.compiler.ir import Graph
from mdlc.compiler.onnx_import import import_model
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.passes.prune_weights import prune_weights
from mdlc.pipeline import optimise

# Input channels, output channels, height and width.
LAYERS = ((128, 128, 28), (256, 256, 14), (512, 512, 14))


def cost(graph: Graph, schedule: Schedule, isa: Isa, *, emulated: bool) -> float:
    """Thousands of instructions, or microseconds."""
    node = next(n for n in graph.order() if isinstance(n.op, Conv2D))
    executable = Executable(lower(graph, isa, "Pointwise", schedules={node.name: schedule}))
    if emulated:
        return count(executable).total[0] / 1e3
    return min(executable.time(60).total for _ in range(5)) / 1e3


@click.command()
@click.option("--target", default="arm-neon", show_default=True)
@click.option("--layers", default=len(LAYERS), show_default=True, help="How many of them.")
def main(target: str, layers: int) -> None:
    """Prints the costs of the dense schedule and of the chosen one."""
    isa = find_isa(target)
    emulated = isa.toolchain.triple.startswith("aarch64")
    table = Table("layer", "zeros", "block", "chosen", "dense", "chosen costs", "times less")
    for channels, filters, size in LAYERS[:layers]:
        model = import_model(pointwise_model(channels, filters, size))
        for ratio, block in (
            (0.5, 1), (0.5, isa.f32.lanes), (0.7, isa.f32.lanes), (0.8, 1), (0.8, isa.f32.lanes),
            (0.9, 1), (0.9, isa.f32.lanes), (0.95, 1),
        ):  # fmt: skip
            graph = optimise(prune_weights(model, ratio, block))
            node = next(n for n in graph.order() if isinstance(n.op, Conv2D))
            found = candidates(node, isa)
            dense = next(c for c in found if c.kernel.name != "conv_sparse")
            costs = [cost(graph, c.schedule, isa, emulated=emulated) for c in (dense, found[0])]
            table.add_row(
                f"{size}x{size}x{channels} to {filters}",
                f"{100 * ratio:.0f} %",
                f"1x{block}",
                f"{found[0].schedule}",
                *(f"{value:.1f}" for value in costs),
                f"{costs[0] / costs[1]:.2f}",
            )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
