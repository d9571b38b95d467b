"""ONNX -> Graph."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

import mdlc.compiler.ops  # noqa: F401  (fills the registry)
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.onnx_inputs import check_declared, import_inputs
from mdlc.compiler.onnx_load import (
    EXPORT_AGAIN,
    ONNX_DOMAINS,
    Source,
    check_operators,
    describe,
    importer_key,
    load_model,
    names_read,
    node_label,
    opset_of,
    ordered_nodes,
)
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.onnx_schema import check_node
from mdlc.compiler.onnx_tensors import attributes_of, check_shape, initializers
from mdlc.compiler.op import Op
from mdlc.compiler.ops.constant import constant

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
    return _import_graph(model, folder, shapes or {}, _name_of(source, model))


def _name_of(source: Source, model: onnx.ModelProto) -> str:
    if isinstance(source, str | os.PathLike):
        return Path(source).stem
    return str(model.graph.name) or "model"


def _import_graph(
    model: onnx.ModelProto, folder: Path | None, shapes: Mapping[str, Sequence[int]], name: str
) -> Graph:
    proto = model.graph
    check_operators(proto.node, Op.importers)
    importer = _Importer(opset_of(model) or 0, folder)
    nodes = ordered_nodes(proto)
    values = importer.weights(proto, nodes)
    weights = {tensor.name for tensor in proto.initializer}
    inputs = import_inputs([i for i in proto.input if i.name not in weights], shapes)
    values.update((node.name, node) for node in inputs)
    outputs = importer.run(nodes, proto, values)
    check_declared(proto, weights, values)
    return Graph(tuple(inputs), tuple(outputs), tuple(o.name for o in proto.output), name)


@dataclass(frozen=True)
class _Importer:
    """Imports nodes of one model.

    Attributes:
        opset: version of the ONNX operator set.
        folder: where external data lies, if there is a folder.
    """

    opset: int
    folder: Path | None

    def weights(self, graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> dict[str, Node]:
        """The initialisers that are used."""
        used = {name for node in nodes for name in names_read(node)}
        used.update(output.name for output in graph.output)
        found = initializers(graph, self.folder, used)
        return {name: constant(value, name) for name, value in found}

    def run(
        self, nodes: Sequence[onnx.NodeProto], graph: onnx.GraphProto, values: dict[str, Node]
    ) -> list[Node]:
        """Imports nodes in order into `values`; returns the graph's outputs."""
        for proto in nodes:
            made = (
                self.branch(proto, values)
                if importer_key(proto) == "If"
                else self.node(proto, values)
            )
            for name, node in zip(proto.output, made, strict=False):
                if name:
                    values[name] = node
        for output in graph.output:
            if output.name not in values:
                raise MdlcError("is not computed by the operators that mdlc has",
                                node=f"output {output.name!r}",
                                hint="cut the model before it")  # fmt: skip
        return [values[output.name] for output in graph.output]

    def branch(self, proto: onnx.NodeProto, values: Mapping[str, Node]) -> list[Node]:
        """The outputs of the branch that an If takes, its condition being a constant."""
        where = describe(proto)
        condition = values.get(proto.input[0]) if proto.input else None
        known = condition.constant if condition is not None else None
        if known is None or known.size != 1:
            raise MdlcError("its condition is computed at run time", node=where,
                            hint="export the model without control flow, or fix dimensions "
                            "with --shape")  # fmt: skip
        attributes = attributes_of(proto, self.folder, where)
        body = attributes.get("then_branch" if bool(known.reshape(-1)[0]) else "else_branch")
        if not isinstance(body, onnx.GraphProto) or len(body.output) != len(proto.output):
            raise MdlcError("its branches are ill-formed", node=where, hint=EXPORT_AGAIN)
        check_operators(body.node, Op.importers)
        # Names that the body makes hide those around it.
        own = {output for node in body.node for output in node.output}
        scope = {name: node for name, node in values.items() if name not in own}
        nodes = ordered_nodes(body, scope)
        scope.update(self.weights(body, nodes))
        return self.run(nodes, body, scope)

    def node(self, proto: onnx.NodeProto, values: Mapping[str, Node]) -> list[Node]:
        """The nodes for the outputs of an ONNX node, folded where they can be."""
        where = describe(proto)
        inputs: list[Node | None] = []
        for name in proto.input:
            if name and name not in values:
                raise MdlcError(f"reads the tensor {name!r}, an output that mdlc does not compute",
                                node=where, hint="cut the model before it")  # fmt: skip
            inputs.append(values[name] if name else None)
        while inputs and inputs[-1] is None:
            inputs.pop()
        attributes = attributes_of(proto, self.folder, where)
        n = OnnxNode(
            proto.op_type, self.opset, inputs, tuple(proto.output), attributes, node_label(proto)
        )
        if proto.domain in ONNX_DOMAINS:
            check_node(n, proto)
        try:
            made = Op.importers[importer_key(proto)].from_onnx(n)
            found = [made] if isinstance(made, Node) else list(made)
            for node in found:
                check_shape(node.shape, where, allow_empty=True)
            return _folded(found, inputs)
        except MdlcError as error:
            if error.node and error.node.startswith("node "):
                raise
            raise n.error(error.reason, error.hint) from error
        except (MemoryError, OverflowError) as error:
            raise n.error("its attributes or inputs are absurd", EXPORT_AGAIN) from error
        except Exception as error:  # whatever Python and numpy make of damaged attributes
            raise n.error(f"its attributes and inputs do not fit: {_shown(n)}", EXPORT_AGAIN) from (
                error
            )


def _shown(n: OnnxNode) -> str:
    """Inputs and attributes of a node, short."""
    inputs = ", ".join("none" if node is None else str(node.type) for node in n.inputs)
    attributes = "".join(
        f", {name} {value!r:.60}"
        for name, value in sorted(n.attributes.items())
        if isinstance(value, int | float | str | list)
    )
    return f"inputs {inputs or 'none'}{attributes}"


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
            fold_it = result.type.nbytes <= LARGEST_FOLDED_BYTES and result.op.foldable
            if fold_it and all(value is not None for value in values):
                with np.errstate(all="ignore"):
                    value = result.op.reference(*(v for v in values if v is not None))
                result = constant(np.asarray(value), node.name)
            done[node] = result
        return done[node]

    return [fold(node) for node in nodes]
