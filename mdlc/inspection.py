"""The graph at a stage of the pipeline."""

from __future__ import annotations

from pathlib import Path

from mdlc.compiler.ir import Graph
from mdlc.compiler.onnx_import import import_model
from mdlc.inputs.preprocess import preprocess
from mdlc.inputs.sources import read_model
from mdlc.options import CompileOptions
from mdlc.pipeline import optimise
from mdlc.recipe import completed
from mdlc.sizes import one_size


def graph_at_stage(model: Path, options: CompileOptions, stage: str | None) -> Graph:
    """The graph as imported, with preprocessing in front, or after the pass of that name.

    Raises:
        MdlcError: the model or an option is bad, or there is no such pass.
    """
    source = read_model(model)
    options = completed(options, source.onnx)
    shapes = one_size(options.shapes, "mdlc inspect")
    imported = import_model(
        source.path or source.onnx, shapes=shapes, fixed=options.fixed, bounds=options.bounds
    )
    graph = preprocess(imported, options.preprocess.for_network(imported))
    if stage is None:
        return graph
    dump = None if options.dump is None else Path(options.dump)
    return optimise(graph, dump=dump, check=options.check, stop_after=stage,
                    without=options.left_out)  # fmt: skip
