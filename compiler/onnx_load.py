"""Reading an ONNX file and checking that it is one, before anything is made of it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.types import Array, DType

Source = str | os.PathLike[str] | bytes | onnx.ModelProto

OLDEST_OPSET = 7
# Larger tensors are no network's; what asks for them is a damaged file.
MOST_ELEMENTS = 2**31 - 1
ONNX_DOMAINS = ("", "ai.onnx")


def load_model(source: Source) -> tuple[onnx.ModelProto, Path | None]:
    """The model and the folder of its external data (None for bytes and protos).

    Raises:
        MdlcError: it cannot be read or is no ONNX model.
    """
    if isinstance(source, onnx.ModelProto):
        model, folder, name = source, None, "the model"
    elif isinstance(source, bytes):
        model, folder, name = _parse(source, "the model"), None, "the model"
    else:
        path = Path(source)
        name = str(path)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise MdlcError("there is no such file", node=name, hint="check the path") from None
        except IsADirectoryError:
            raise MdlcError("this is a folder, not a model", node=name) from None
        except OSError as error:
            raise MdlcError(f"cannot be read: {error.strerror}", node=name) from None
        model, folder = _parse(data, name), path.parent
    _check_versions(model, name)
    if model.functions:
        try:
            model = onnx.inliner.inline_local_functions(model)
        except Exception as error:
            raise MdlcError(f"its local functions cannot be inlined: {_first_line(error)}",
                            node=name) from error  # fmt: skip
    return model, folder


def _parse(data: bytes, name: str) -> onnx.ModelProto:
    model = onnx.ModelProto()
    if not data:
        raise MdlcError("the file is empty", node=name, hint="export the model again")
    try:
        model.ParseFromString(data)
    except (DecodeError, ValueError, RuntimeError):
        raise MdlcError("not an ONNX model: truncated, damaged or another format", node=name,
                        hint="export the model again, or convert it to ONNX") from None  # fmt: skip
    if not model.HasField("graph") or not model.opset_import:
        raise MdlcError("not an ONNX model: it has no graph or no operator set", node=name,
                        hint="export the model again, or convert it to ONNX")  # fmt: skip
    return model


def _check_versions(model: onnx.ModelProto, name: str) -> None:
    newest = onnx.defs.onnx_opset_version()
    opset = opset_of(model)
    if opset is None:
        raise MdlcError("the model uses no operators of the ONNX domain", node=name)
    if not OLDEST_OPSET <= opset <= newest:
        raise MdlcError(f"operator set {opset} is not supported", node=name,
                        hint=f"export it with one from {OLDEST_OPSET} to {newest}")  # fmt: skip
    if not model.graph.output:
        raise MdlcError("the model has no outputs", node=name)
    if model.graph.sparse_initializer:
        raise MdlcError("sparse initialisers are not supported", node=name,
                        hint="export the weights dense")  # fmt: skip


def opset_of(model: onnx.ModelProto) -> int | None:
    """Version of the default operator set."""
    versions = [o.version for o in model.opset_import if o.domain in ONNX_DOMAINS]
    return int(max(versions)) if versions else None


def node_label(node: onnx.NodeProto) -> str:
    """What a node is called in messages: its name, or its first output."""
    return str(node.name or next((o for o in node.output if o), node.op_type))


def ordered_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes, each after what it reads (ONNX demands it, exporters do not always comply).

    Raises:
        MdlcError: a cycle, a tensor that no one makes, or one that two make.
    """
    made: dict[str, int] = {}
    known = {i.name for i in graph.input} | {i.name for i in graph.initializer}
    for index, node in enumerate(graph.node):
        for output in filter(None, node.output):
            if output in made or output in known:
                raise MdlcError(f"tensor {output!r} is made twice", node=_describe(node))
            made[output] = index
    dependencies = nx.DiGraph()
    dependencies.add_nodes_from(range(len(graph.node)))
    for index, node in enumerate(graph.node):
        for name in filter(None, node.input):
            if name in made:
                dependencies.add_edge(made[name], index)
            elif name not in known:
                raise MdlcError(f"reads the tensor {name!r}, which nothing makes",
                                node=_describe(node))  # fmt: skip
    for output in graph.output:
        if output.name not in made and output.name not in known:
            raise MdlcError(f"output {output.name!r} is made by nothing")
    try:
        return [graph.node[i] for i in nx.lexicographical_topological_sort(dependencies)]
    except nx.NetworkXUnfeasible:
        first = nx.find_cycle(dependencies)[0][0]
        raise MdlcError("the graph has a cycle", node=_describe(graph.node[first])) from None


def _describe(node: onnx.NodeProto) -> str:
    return f"node {node_label(node)!r} ({node.op_type})"


def check_operators(nodes: Sequence[onnx.NodeProto], known: Mapping[str, object]) -> None:
    """Raises one MdlcError that names every operator that is missing, with its nodes."""
    missing: dict[str, list[str]] = {}
    for node in nodes:
        foreign = node.domain not in ONNX_DOMAINS
        if foreign or node.op_type not in known:
            name = f"{node.domain}.{node.op_type}" if foreign else node.op_type
            missing.setdefault(name, []).append(node_label(node))
    if not missing:
        return
    parts = []
    for name, where in sorted(missing.items()):
        shown = ", ".join(repr(w) for w in where[:3]) + (", ..." if len(where) > 3 else "")
        parts.append(f"{name} ({len(where)}x: {shown})")
    raise MdlcError(
        f"operators that mdlc does not have: {'; '.join(parts)}",
        hint="export the model without them, or cut it before them",
    )


def initializers(graph: onnx.GraphProto, folder: Path | None) -> Iterator[tuple[str, Array]]:
    """Names and values of the weights; external data is read from `folder`.

    Raises:
        MdlcError: a weight's data is missing, too short, or of a type without a numpy dtype.
    """
    twice = [name for name, n in Counter(i.name for i in graph.initializer).items() if n > 1]
    if twice:
        raise MdlcError(f"weight {twice[0]!r} is defined twice")
    for tensor in graph.initializer:
        yield tensor.name, tensor_value(tensor, folder)


def tensor_value(tensor: onnx.TensorProto, folder: Path | None) -> Array:
    """The numpy array of an ONNX tensor."""
    where = f"weight {tensor.name!r}"
    check_shape(tensor.dims, where, allow_empty=True)
    try:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            return _external(tensor, folder, where)
        value = onnx.numpy_helper.to_array(tensor)
        DType.from_numpy(value.dtype)
        return value
    except MdlcError:
        raise
    except Exception as error:
        kind = onnx.TensorProto.DataType.Name(tensor.data_type) if tensor.data_type in (
            onnx.TensorProto.DataType.values()) else str(tensor.data_type)  # fmt: skip
        raise MdlcError(
            f"its data does not fit element type {kind} and shape {list(tensor.dims)}", node=where
        ) from error


def _external(tensor: onnx.TensorProto, folder: Path | None, where: str) -> Array:
    entries = {e.key: e.value for e in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise MdlcError(f"its data lies in a file {location!r} beside the model", node=where,
                        hint="give mdlc the path of the model")  # fmt: skip
    path = (folder / location).resolve()
    if not location or not path.is_relative_to(folder.resolve()):
        raise MdlcError(f"external data {location!r} lies outside the model's folder", node=where)
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    count = int(np.prod(tensor.dims, dtype=np.int64))
    wanted = count * dtype.itemsize
    offset = int(entries.get("offset", 0))
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(wanted)
    except OSError:
        raise MdlcError(f"external data {location!r} is missing", node=where,
                        hint="keep it beside the model") from None  # fmt: skip
    if len(data) < wanted or int(entries.get("length", wanted)) < wanted:
        raise MdlcError(f"external data {location!r} is too short", node=where,
                        hint="export the model again")  # fmt: skip
    DType.from_numpy(dtype)
    return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype).reshape(tensor.dims)


def check_shape(dims: Sequence[int], where: str, *, allow_empty: bool = False) -> None:
    """Raises MdlcError for dimensions that no network has."""
    if any(d < 0 or (d == 0 and not allow_empty) for d in dims):
        raise MdlcError(f"shape {list(dims)} has a dimension below 1", node=where)
    total = 1
    for d in dims:
        total *= d
        if total > MOST_ELEMENTS:
            raise MdlcError(f"shape {list(dims)} is too large", node=where)


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Attributes as Python values: bytes decoded, tensors as arrays; subgraphs stay protos."""
    found: dict[str, Any] = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        elif isinstance(value, onnx.TensorProto):
            value = tensor_value(value, None)
        elif attribute.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS):
            value = list(value)
        found[attribute.name] = value
    return found


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
