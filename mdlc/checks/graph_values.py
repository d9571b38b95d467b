"""Values of a graph's nodes on samples, computed by ONNX Runtime: much faster than in NumPy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnxruntime

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.onnx_export import export_onnx
from mdlc.compiler.types import Array


def node_values(
    graph: Graph, nodes: Sequence[Node], samples: Sequence[Mapping[str, Array]]
) -> Iterator[dict[Node, Array]]:
    """The values of some nodes for every sample in turn.

    Raises:
        MdlcError: ONNX Runtime does not take the graph.
    """
    distinct = list(dict.fromkeys(nodes))
    inputs = {node: node.name for node in graph.inputs}
    wanted = [node for node in distinct if node not in inputs]
    session = (
        _session(
            Graph(graph.inputs, tuple(wanted), tuple(f"value_{i}" for i in range(len(wanted))))
        )
        if wanted
        else None
    )
    for sample in samples:
        values = {node: sample[inputs[node]] for node in distinct if node in inputs}
        if session is not None:
            needed = {i.name for i in session.get_inputs()}
            found = session.run(None, {n: v for n, v in sample.items() if n in needed})
            values.update(zip(wanted, map(np.asarray, found), strict=True))
        yield values


def _session(graph: Graph) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1  # networks here are small, and a busy machine is no faster
    try:
        return onnxruntime.InferenceSession(
            export_onnx(graph).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except MdlcError:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MdlcError(f"ONNX Runtime does not run the network: {first}") from error
