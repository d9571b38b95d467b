"""ONNX -> Graph."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import mdlc.compiler.ops  # noqa: F401  (fills the registry)
import numpy as np
import onnx
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.onnx_load import (
    Source,
    attributes_of,
    check_operators,
    check_shape,
    initializers,
    load_model,
    node_label,
    opset_of,
    ordered_nodes,
)
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Op
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.input import graph_input
from mdlc.compiler.types import DType

# Constants above this size are not folded at import (a pass may still fold them).
LARGEST_FOLDED_BYTES = 64 << 20


def import_model(source: Source, *, shapes: Mapping[str, Sequence[int]] | None = None) -> Graph:
    """A graph of an ONNX model, with static shapes and shape arithmetic folded away.

    Args:
        source: a path, the file's bytes, or a parsed model.
        shapes: shapes of inputs by name; needed where dimensions are open. The first dimension,
            where open, is 1.

    Raises:
        MdlcError: the model is damaged or uses what mdlc does not have; see onnx_load.
    """
    model, folder = load_model(source)
    nodes = ordered_nodes(model.graph)
    check_operators(nodes, Op.importers)
    opset = opset_of(model) or 0
    values: dict[str, Node] = {
        name: constant(value, name) for name, value in initializers(model.graph, folder)
    }
    inputs = _inputs(model.graph, dict(shapes or {}), values)
    values.update((node.name, node) for node in inputs)
    for proto in nodes:
        for name, node in zip(proto.output, _import(proto, opset, values), strict=False):
            if name:
                values[name] = node
    outputs = [values[o.name] for o in model.graph.output if o.name in values]
    names = tuple(o.name for o in model.graph.output)
    if len(outputs) < len(names):
        lost = next(name for name in names if name not in values)
        raise MdlcError(f"output {lost!r} is not computed by the operators that mdlc has")
    for proto, node in zip(model.graph.output, outputs, strict=True):
        _check_declared(proto, node)
    return Graph(tuple(inputs), tuple(outputs), names, _name_of(source, model))


def _name_of(source: Source, model: onnx.ModelProto) -> str:
    if isinstance(source, str | os.PathLike):
        return Path(source).stem
    return str(model.graph.name) or "model"


def _inputs(
    graph: onnx.GraphProto, shapes: dict[str, Sequence[int]], weights: Mapping[str, Node]
) -> list[Node]:
    inputs = []
    for proto in graph.input:
        if proto.name in weights:  # before IR version 4 weights are listed as inputs too
            continue
        inputs.append(_input(proto, shapes.pop(proto.name, None)))
    if shapes:
        known = ", ".join(repr(node.name) for node in inputs)
        raise MdlcError(
            f"the model has no input {next(iter(shapes))!r}",
            node="--shape",
            hint=f"its inputs are {known}",
        )
    return inputs


def _input(proto: onnx.ValueInfoProto, given: Sequence[int] | None) -> Node:
    where = f"input {proto.name!r}"
    kind = proto.type.tensor_type
    if not proto.type.HasField("tensor_type") or not kind.elem_type:
        raise MdlcError("is not a tensor", node=where, hint="mdlc takes tensors only")
    try:
        dtype = DType.from_numpy(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    except (KeyError, TypeError, ValueError):
        name = onnx.TensorProto.DataType.Name(kind.elem_type)
        raise MdlcError(f"element type {name} is not supported", node=where) from None
    declared = [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim]
    if given is not None:
        if not kind.HasField("shape"):
            declared = [None] * len(given)
        if len(given) != len(declared):
            raise MdlcError(
                f"--shape gives {len(given)} dimensions, the model has {len(declared)}", node=where
            )
        for position, (d, g) in enumerate(zip(declared, given, strict=True)):
            if d is not None and d > 0 and d != g:
                raise MdlcError(
                    f"--shape gives {g} for dimension {position}, which the model fixes at {d}",
                    node=where,
                )
        shape = [int(g) for g in given]
    else:
        if not kind.HasField("shape"):
            raise MdlcError("has no shape", node=where,
                            hint=f"give it with --shape {proto.name}=1,3,224,224")  # fmt: skip
        shape = []
        for position, dim in enumerate(declared):
            if dim is not None and dim > 0:
                shape.append(int(dim))
            elif position == 0:
                shape.append(1)  # the batch
            else:
                example = ",".join("1" if i == 0 else str(d or 224) for i, d in enumerate(declared))
                raise MdlcError(f"dimension {position} is open", node=where,
                                hint=f"fix it, as in --shape {proto.name}={example}")  # fmt: skip
    check_shape(shape, where)
    return graph_input(proto.name, tuple(shape), dtype)


def _import(proto: onnx.NodeProto, opset: int, values: Mapping[str, Node]) -> list[Node]:
    inputs: list[Node | None] = [values.get(name) if name else None for name in proto.input]
    for name, node in zip(proto.input, inputs, strict=True):
        if name and node is None:
            raise MdlcError(
                f"reads the tensor {name!r}, an output that mdlc does not compute",
                node=f"node {node_label(proto)!r} ({proto.op_type})",
            )
    while inputs and inputs[-1] is None:
        inputs.pop()
    onnx_node = OnnxNode(
        proto.op_type,
        opset,
        inputs,
        tuple(proto.output),
        attributes_of(proto),
        node_label(proto),
    )
    try:
        made = Op.importers[proto.op_type].from_onnx(onnx_node)
    except MdlcError as error:
        if error.node and error.node.startswith("node "):
            raise
        raise onnx_node.error(error.reason, error.hint) from error
    except (
        TypeError,
        ValueError,
        IndexError,
        KeyError,
        AttributeError,
        ZeroDivisionError,
    ) as error:
        raise onnx_node.error(f"its attributes or inputs are ill-formed ({error})") from error
    except (OverflowError, MemoryError) as error:
        raise onnx_node.error(f"its attributes or inputs are absurd ({error})") from error
    found = [made] if isinstance(made, Node) else list(made)
    for node in found:
        check_shape(node.shape, onnx_node.error("").node or "", allow_empty=True)
    return _folded(found, inputs)


def _folded(nodes: list[Node], inputs: Sequence[Node | None]) -> list[Node]:
    """The nodes that one ONNX node became, evaluated where all their inputs are constants."""
    known = {node for node in inputs if node is not None}
    done: dict[Node, Node] = {}

    def fold(node: Node) -> Node:
        if node in known or not node.inputs:
            return node
        if node not in done:
            result = node.with_inputs(fold(source) for source in node.inputs)
            values = [source.constant for source in result.inputs]
            small = result.type.nbytes <= LARGEST_FOLDED_BYTES
            if small and all(value is not None for value in values):
                with np.errstate(all="ignore"):
                    value = result.op.reference(*(v for v in values if v is not None))
                result = constant(np.asarray(value), node.name)
            done[node] = result
        return done[node]

    return [fold(node) for node in nodes]


def _check_declared(proto: onnx.ValueInfoProto, node: Node) -> None:
    """The declared shape of an output against the one that follows from the operators."""
    kind = proto.type.tensor_type
    if not kind.HasField("shape"):
        return
    declared = [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim]
    agrees = len(declared) == len(node.shape) and all(
        d is None or d <= 0 or i == 0 or d == s
        for i, (d, s) in enumerate(zip(declared, node.shape, strict=False))
    )
    if not agrees:
        shown = [d if d else "?" for d in declared]
        raise MdlcError(
            f"the model declares shape {shown}, but its operators give {list(node.shape)}",
            node=f"output {proto.name!r}",
            hint="export the model again",
        )
