"""mdlc inspect: the graph as a table or as a picture."""

from __future__ import annotations

from pathlib import Path

import click

from mdlc.commands.console import count
from mdlc.commands.options import GroupedCommand, Job, takes_model
from mdlc.commands.paths import Written
from mdlc.commands.tables import Column, Form, Sheet, number, prints_table
from mdlc.compiler.ir import Graph, Node
from mdlc.drawing import svg
from mdlc.inspection import graph_at_stage
from mdlc.option import Group
from mdlc.output import write_file

COLUMNS = (
    Column("name", "layer", least=16),
    Column("operator", "operator", least=24),
    Column("output", "output", least=18),
    number("macs", "MAC", count),
    number("parameters", "parameters", count, rank=1),
)


@click.command("inspect", cls=GroupedCommand, example="mdlc inspect model.onnx --sort macs")
@takes_model({Group.INPUT, Group.PASSES})
@click.option(
    "--stage",
    metavar="PASS",
    help="The graph after this pass; default: as imported, with preprocessing.",
)
@click.option(
    "--svg",
    "picture",
    type=Written(),
    metavar="FILE",
    help="Draw it to this file instead of printing a table.",
)
@prints_table(COLUMNS)
def command(job: Job, stage: str | None, picture: Path | None, form: Form) -> None:
    """Print the layers of MODEL with their shapes, multiply-adds and parameters.

    A stage is the name of a pass, such as lower_batch_norm; what the last one, assign_layout,
    leaves is what code is made from.
    """
    graph = graph_at_stage(job.model, job.options, stage)
    if picture is not None:
        write_file(picture, svg(graph).encode())
        form.line(str(picture))
    table = sheet(graph)
    if picture is None:
        form.show(table)
    macs = sum(row["macs"] for row in table.rows)
    form.line(
        f"{graph.name}: {_layers(graph)} layers, {count(macs)} MAC, "
        f"{count(_parameters(graph))} parameters"
    )
    form.document(
        {
            "name": graph.name,
            "macs": macs,
            "parameters": _parameters(graph),
            "layers": form.sorted(table),
        }
    )


def sheet(graph: Graph) -> Sheet:
    """The layers as a table, in order."""
    return Sheet(
        COLUMNS,
        [
            {
                "name": node.name,
                "operator": str(node.op),
                "output": str(node.type),
                "macs": node.op.cost([source.type for source in node.inputs], node.type).macs,
                "parameters": sum(s.type.size for s in node.inputs if s.constant is not None),
            }
            for node in graph.order()
            if node.constant is None
        ],
    )


def _layers(graph: Graph) -> int:
    return sum(1 for node in graph.order() if node.inputs)


def _parameters(graph: Graph) -> int:
    """Elements of all constants, each counted once."""
    constants: set[Node] = {node for node in graph.order() if node.constant is not None}
    return sum(node.type.size for node in constants)
