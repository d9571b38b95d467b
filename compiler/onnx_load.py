"""Reading an ONNX file and checking that it is one, before anything is made of it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import networkx as nx
import onnx
import onnx.inliner
import onnx.version_converter
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]

from mdlc.compiler.errors import MdlcError

Source: TypeAlias = "str | os.PathLike[str] | bytes | onnx.ModelProto"

# What the importers read; older models are converted.
OLDEST_OPSET = 7
ONNX_DOMAINS = ("", "ai.onnx")
# Local functions that call each other can stand for exponentially many nodes.
MOST_INLINED_NODES = 1_000_000
EXPORT_AGAIN = "export the model again"


def load_model(source: Source) -> tuple[onnx.ModelProto, Path | None]:
    """The model, its local functions inlined, and the folder of its external data (None for
    bytes and protos).

    Raises:
        MdlcError: it cannot be read or is no ONNX model.
    """
    folder: Path | None = None
    name = "the model"
    if isinstance(source, onnx.ModelProto):
        model = source
    elif isinstance(source, bytes):
        model = _parse(source, name)
    else:
        path = Path(source)
        name = printable(str(path))
        model, folder = _parse(_read(path), name), path.parent
    _check_model(model, name)
    _check_names(model, name)
    model = _inlined(model, name) if model.functions else model
    return (_converted(model, name) if (opset_of(model) or 0) < OLDEST_OPSET else model), folder


def _read(path: Path) -> bytes:
    name = printable(str(path))
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise MdlcError("there is no such file", node=name, hint="check the path") from None
    except IsADirectoryError:
        raise MdlcError("this is a folder, not a model", node=name,
                        hint="give the .onnx file in it") from None  # fmt: skip
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the path is malformed"
        raise MdlcError(f"cannot be read: {reason}", node=name,
                        hint="check the path") from None  # fmt: skip


def _parse(data: bytes, name: str) -> onnx.ModelProto:
    model = onnx.ModelProto()
    if not data:
        raise MdlcError("the file is empty", node=name, hint=EXPORT_AGAIN)
    try:
        model.ParseFromString(data)
    except (DecodeError, ValueError, RuntimeError):
        raise MdlcError("not an ONNX model: truncated, damaged or another format", node=name,
                        hint="export the model again, or convert it to ONNX") from None  # fmt: skip
    return model


def _check_model(model: onnx.ModelProto, name: str) -> None:
    if not model.HasField("graph") or not model.opset_import:
        raise MdlcError("not an ONNX model: it has no graph or no operator set", node=name,
                        hint="export the model again, or convert it to ONNX")  # fmt: skip
    newest = onnx.defs.onnx_opset_version()
    opset = opset_of(model)
    if opset is None:
        raise MdlcError("the model uses no operator set of the ONNX domain", node=name,
                        hint="export it with standard operators")  # fmt: skip
    if not 1 <= opset <= newest:
        raise MdlcError(f"operator set {opset} is not supported", node=name,
                        hint=f"export it with one from 1 to {newest}")  # fmt: skip
    if not model.graph.output:
        raise MdlcError("the model has no outputs", node=name, hint=EXPORT_AGAIN)
    for what, values in (("input", model.graph.input), ("output", model.graph.output)):
        names = Counter(value.name for value in values)
        repeated = next((n for n in names if names[n] > 1 or not n), None)
        if repeated is not None:
            problem = "is listed twice" if repeated else "has no name"
            raise MdlcError(problem, node=f"{what} {repeated!r}", hint=EXPORT_AGAIN)


def _check_names(model: onnx.ModelProto, where: str) -> None:
    """Raises MdlcError for text that is not UTF-8: protobuf hands it out as bytes."""
    pending: list[Message] = [model]
    while pending:
        message = pending.pop()
        for field, value in message.ListFields():
            if field.type == field.TYPE_MESSAGE:
                pending.extend([value] if isinstance(value, Message) else value)
            elif field.type == field.TYPE_STRING:
                texts = [value] if isinstance(value, str | bytes) else value
                if any(isinstance(text, bytes) for text in texts):
                    raise MdlcError(f"the field {field.name!r} in it is not UTF-8 text", node=where,
                                    hint=EXPORT_AGAIN)  # fmt: skip


def opset_of(model: onnx.ModelProto) -> int | None:
    """Version of the default operator set."""
    return opset_of_imports(model.opset_import)


def opsets_of(model: onnx.ModelProto) -> dict[str, int]:
    """Versions of all operator sets by domain; both names of the default one are there."""
    found = {o.domain: int(o.version) for o in model.opset_import}
    return {**found, **dict.fromkeys(ONNX_DOMAINS, opset_of(model) or 0)}


def opset_of_imports(imports: Iterable[onnx.OperatorSetIdProto]) -> int | None:
    """Version of the default operator set among those that a model or function imports."""
    versions = [o.version for o in imports if o.domain in ONNX_DOMAINS]
    return int(max(versions)) if versions else None


def _inlined(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The model with calls of its local functions replaced by their bodies."""
    bodies = {(f.domain, f.name): f for f in model.functions}
    calls = nx.MultiDiGraph()
    calls.add_nodes_from(bodies)
    for key, function in bodies.items():
        for node in subgraph_nodes(function.node):
            if (node.domain, node.op_type) in bodies:
                calls.add_edge(key, (node.domain, node.op_type))
    try:
        order = list(nx.topological_sort(calls))
    except nx.NetworkXUnfeasible:
        raise MdlcError("its local functions call themselves", node=name,
                        hint=EXPORT_AGAIN) from None  # fmt: skip
    sizes: dict[tuple[str, str], int] = {}
    for key in reversed(order):
        sizes[key] = len(bodies[key].node) + sum(sizes[used] for _, used in calls.out_edges(key))
    total = sum(sizes.get((n.domain, n.op_type), 1) for n in subgraph_nodes(model.graph.node))
    if total > MOST_INLINED_NODES:
        raise MdlcError(f"its local functions stand for {total} nodes", node=name,
                        hint=f"at most {MOST_INLINED_NODES} are supported")  # fmt: skip
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:  # the C++ inliner raises what it likes
        raise MdlcError("its local functions are malformed and cannot be inlined", node=name,
                        hint="export it without functions") from error  # fmt: skip


def _converted(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """A model of an old operator set in the oldest that the importers read."""
    listed = onnx.ModelProto()
    listed.CopyFrom(model)
    # As these operator sets have it; files do not always.
    names = {value.name for value in model.graph.input}
    listed.graph.input.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in model.graph.initializer
        if tensor.name not in names
    )
    try:
        return onnx.version_converter.convert_version(listed, OLDEST_OPSET)
    except Exception as error:  # the C++ converter raises what it likes
        raise MdlcError(
            f"operator set {opset_of(model)} of the model is older than {OLDEST_OPSET}, and the "
            "onnx package does not convert it",
            node=name,
            hint=f"export it with operator set {OLDEST_OPSET} or newer",
        ) from error


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The bodies of a control-flow node."""
    return [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]


def subgraph_nodes(nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Nodes and those of their subgraphs."""
    found = list(nodes)
    for node in found:  # grows while it is walked
        for body in subgraphs(node):
            found.extend(body.node)
    return found


def names_read(node: onnx.NodeProto) -> set[str]:
    """Tensors that a node reads, those that its subgraphs capture among them."""
    names = {name for name in node.input if name}
    for body in subgraphs(node):
        names.update(output.name for output in body.output)
        for inner in subgraph_nodes(body.node):
            names.update(name for name in inner.input if name)
            names.update(o.name for g in subgraphs(inner) for o in g.output)
    return names


def node_label(node: onnx.NodeProto) -> str:
    """What a node is called in messages: its name, or its first output."""
    return str(node.name or next((o for o in node.output if o), node.op_type))


def describe(node: onnx.NodeProto) -> str:
    """Where an error is, for MdlcError.node."""
    return f"node {node_label(node)!r} ({printable(node.op_type)})"


def printable(name: str) -> str:
    """A name on one line: as it is, or with what is not printable escaped."""
    return name if name and name.isprintable() else repr(name)


def ordered_nodes(graph: onnx.GraphProto, outer: Collection[str] = ()) -> list[onnx.NodeProto]:
    """The nodes, each after what it reads (ONNX demands it, exporters do not always comply).

    Args:
        outer: tensors of the graph around a subgraph.

    Raises:
        MdlcError: a cycle, a tensor that no one makes, or one that two make.
    """
    made: dict[str, int] = {}
    known = {i.name for i in graph.input} | {i.name for i in graph.initializer} | set(outer)
    known.update(i.values.name for i in graph.sparse_initializer)
    for index, node in enumerate(graph.node):
        for output in filter(None, node.output):
            if output in made or output in known:
                raise MdlcError(f"tensor {output!r} is computed twice", node=describe(node),
                                hint=EXPORT_AGAIN)  # fmt: skip
            made[output] = index
    dependencies = nx.DiGraph()
    dependencies.add_nodes_from(range(len(graph.node)))
    for index, node in enumerate(graph.node):
        for name in filter(None, node.input):
            if name not in made and name not in known:
                raise MdlcError(f"reads the tensor {name!r}, which no operator computes",
                                node=describe(node), hint=EXPORT_AGAIN)  # fmt: skip
        for name in sorted(names_read(node) & made.keys()):
            # A name that a subgraph makes for itself may hide one of ours: no dependency then.
            if made[name] != index or name in node.input:
                dependencies.add_edge(made[name], index)
    for output in graph.output:
        if output.name not in made and output.name not in known:
            raise MdlcError("is computed by no operator", node=f"output {output.name!r}",
                            hint=EXPORT_AGAIN)  # fmt: skip
    try:
        return [graph.node[i] for i in nx.lexicographical_topological_sort(dependencies)]
    except nx.NetworkXUnfeasible:
        first = nx.find_cycle(dependencies)[0][0]
        raise MdlcError("the graph has a cycle", node=describe(graph.node[first]),
                        hint=EXPORT_AGAIN) from None  # fmt: skip


def live_nodes(nodes: Sequence[onnx.NodeProto], graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes that a graph's outputs need, without outputs of theirs that nothing reads.

    Args:
        nodes: each after what it reads.
    """
    read = {output.name for output in graph.output}
    found = []
    for node in reversed(nodes):
        kept = [name if name in read else "" for name in node.output]
        if not any(kept):
            continue
        read |= names_read(node)
        # The first output stays: it gives the node its name.
        kept[0] = node.output[0]
        if kept != list(node.output):
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.output[:] = kept
            node = copy
        found.append(node)
    return found[::-1]


def importer_key(node: onnx.NodeProto) -> str:
    """The operator's name in Op.importers: with its domain, where that is not ONNX's own."""
    own = node.domain in ONNX_DOMAINS
    return str(node.op_type) if own else f"{node.domain}.{node.op_type}"


def check_operators(
    nodes: Sequence[onnx.NodeProto], known: Callable[[onnx.NodeProto], bool]
) -> None:
    """Raises one MdlcError that names every operator that is missing, with its nodes."""
    missing: dict[str, list[str]] = {}
    hints: dict[str, None] = {}
    for node in nodes:
        if known(node):
            continue
        name = importer_key(node)
        missing.setdefault(printable(name), []).append(node_label(node))
        hints[_hint(node)] = None
    if not missing:
        return
    parts = []
    for name, where in sorted(missing.items()):
        shown = ", ".join(repr(w[:80]) for w in where[:3]) + (", ..." if len(where) > 3 else "")
        parts.append(f"{name} ({len(where)}x: {shown})")
    raise MdlcError(f"operators that mdlc does not have: {'; '.join(parts)}",
                    hint="; ".join(sorted(hints)))  # fmt: skip


def _hint(node: onnx.NodeProto) -> str:
    if "training" in node.domain:
        return "export the model for inference, not for training"
    if node.domain == "com.microsoft.nchwc":
        return "ONNX Runtime wrote the model for one processor: save it optimised at level extended"
    if node.domain not in ONNX_DOMAINS:
        return f"export the model with standard operators, without those of {node.domain!r}"
    return "export the model without them, or cut it before them"
