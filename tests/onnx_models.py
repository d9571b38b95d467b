"""Little ONNX models for tests of the importer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from mdlc.compiler.interpreter import run
from mdlc.compiler.ir import Graph

Array = npt.NDArray[Any]
FLOAT = TensorProto.FLOAT
Dims = Sequence[int | str | None] | None


def value(name: str, dims: Dims = (1, 4), elem_type: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, elem_type, dims)


def weight(name: str, array: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.asarray(array, dtype), name)


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """Inputs and outputs are separated by blanks; _ is an absent one."""
    names = [["" if name == "_" else name for name in x.split()] for x in (inputs, outputs)]
    return helper.make_node(op, *names, **attributes)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto] = (),
    outputs: Sequence[onnx.ValueInfoProto] = (),
    weights: Sequence[TensorProto] = (),
    *,
    opset: int = 17,
    ir_version: int = 8,
    **more: Any,
) -> onnx.ModelProto:
    """Input x and output y are [1, 4] float where they are not given."""
    graph = helper.make_graph(
        list(nodes),
        "little",
        list(inputs) or [value("x")],
        list(outputs) or [value("y")],
        list(weights),
        value_info=more.pop("value_info", None),
        sparse_initializer=more.pop("sparse_initializer", None),
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset), *more.pop("opsets", [])],
        ir_version=ir_version,
        **more,
    )


def feeds(graph: Graph, seed: int = 1) -> dict[str, Array]:
    generator = np.random.default_rng(seed)
    return {
        i.name: (generator.standard_normal(i.shape) * 4).astype(i.type.dtype.numpy)
        for i in graph.inputs
    }


def assert_as_onnxruntime(proto: onnx.ModelProto | str, graph: Graph) -> None:
    """The interpreted graph gives what ONNX Runtime computes, name by name."""
    source = proto if isinstance(proto, str) else proto.SerializeToString()
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    inputs = feeds(graph)
    names = [o.name for o in session.get_outputs()]
    actual = run(graph, inputs)
    assert list(actual) == names
    for name, expected in zip(names, session.run(None, inputs), strict=True):
        assert actual[name].dtype == expected.dtype
        tolerance = 5e-3 if expected.dtype == np.float16 else 1e-5
        np.testing.assert_allclose(actual[name], expected, rtol=tolerance, atol=tolerance)
