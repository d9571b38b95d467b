"""mdlc inspect: the graph as a table and as a picture."""

from __future__ import annotations

from pathlib import Path

import click

from mdlc.commands.console import count, out, table
from mdlc.commands.options import GroupedCommand, Job, takes_model
from mdlc.compiler.ir import Graph, Node
from mdlc.drawing import svg
from mdlc.inspection import graph_at_stage
from mdlc.option import Group
from mdlc.output import write_file


@click.command("inspect", cls=GroupedCommand)
@takes_model({Group.INPUT, Group.PASSES})
@click.option(
    "--stage",
    metavar="PASS",
    help="The graph after this pass; default: as imported, with preprocessing.",
)
@click.option(
    "--svg",
    "picture",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also draw it to this file.",
)
def command(job: Job, stage: str | None, picture: Path | None) -> None:
    """Print the layers of MODEL with their shapes, multiply-adds and parameters.

    A stage is the name of a pass, such as lower_batch_norm; what the last one, assign_layout,
    leaves is what code is made from.
    """
    graph = graph_at_stage(job.model, job.options, stage)
    if picture is not None:
        write_file(picture, svg(graph).encode())
    shown = table("layer", "operator", "output", "MAC", "parameters", right=("MAC", "parameters"))
    macs = 0
    for node in graph.order():
        if node.constant is not None:
            continue
        work = node.op.cost([source.type for source in node.inputs], node.type).macs
        macs += work
        parameters = sum(s.type.size for s in node.inputs if s.constant is not None)
        shown.add_row(node.name, str(node.op), str(node.type), count(work), count(parameters))
    console = out()
    console.print(shown)
    console.print(
        f"{graph.name}: {_layers(graph)} layers, {count(macs)} MAC, "
        f"{count(_parameters(graph))} parameters"
    )


def _layers(graph: Graph) -> int:
    return sum(1 for node in graph.order() if node.inputs)


def _parameters(graph: Graph) -> int:
    """Elements of all constants, each counted once."""
    constants: set[Node] = {node for node in graph.order() if node.constant is not None}
    return sum(node.type.size for node in constants)
