"""The graph at a stage of the pipeline."""

from __future__ import annotations

from mdlc.commands.options import ModelOptions, parse_shapes
from mdlc.compiler.ir import Graph
from mdlc.compiler.onnx_import import import_model
from mdlc.inputs.preprocess import Preprocess, parse_numbers, preprocess
from mdlc.inputs.sources import read_model
from mdlc.pipeline import optimise


def graph_at_stage(options: ModelOptions, stage: str | None) -> Graph:
    """The graph as imported, with preprocessing in front, or after the pass of that name.

    Raises:
        MdlcError: the model or an option is bad, or there is no such pass.
    """
    how = Preprocess(
        options.input_format,
        parse_numbers(options.mean, "--mean"),
        parse_numbers(options.std, "--std"),
        options.channel_order,
    )
    source = read_model(options.model)
    graph = import_model(source.path or source.onnx, shapes=parse_shapes(options.shape))
    graph = preprocess(graph, how)
    if stage is None:
        return graph
    return optimise(graph, dump=options.dump, check=options.check, stop_after=stage)
