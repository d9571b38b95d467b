"""ONNX -> Graph."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx

import mdlc.compiler.ops  # noqa: F401  (fills the registry)
from mdlc.compiler.counts import Counts
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph, Node, ancestors
from mdlc.compiler.obstacles import Obstacle, Obstacles
from mdlc.compiler.onnx_control import CONTROL, ControlNode, Value
from mdlc.compiler.onnx_declared import Unsettled, choices, chosen, declared_shapes
from mdlc.compiler.onnx_fold import fold, folded
from mdlc.compiler.onnx_functions import function_body, has_function, is_microsoft
from mdlc.compiler.onnx_inputs import check_declared, import_inputs, reopened
from mdlc.compiler.onnx_load import (
    EXPORT_AGAIN,
    ONNX_DOMAINS,
    Source,
    check_operators,
    describe,
    importer_key,
    live_nodes,
    load_model,
    names_read,
    node_label,
    opsets_of,
    ordered_nodes,
)
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.onnx_schema import check_node
from mdlc.compiler.onnx_sequences import ALSO_SEQUENCES, SEQUENCES
from mdlc.compiler.onnx_tensors import attributes_of, check_shape, initializers
from mdlc.compiler.op import Op
from mdlc.compiler.ops.constant import constant


def import_model(
    source: Source,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    fixed: Mapping[str, float | Sequence[float]] | None = None,
    bounds: Mapping[str, int] | None = None,
    obstacles: Obstacles | None = None,
) -> Graph:
    """A graph of an ONNX model, with static shapes and shape arithmetic folded away.

    Args:
        source: a path, the file's bytes, or a parsed model.
        shapes: shapes of inputs by name; needed where dimensions are open. The first dimension,
            where open, is 1.
        fixed: values of inputs by name, one for all elements or as many as there are: constants
            of the graph from there on.
        bounds: entries that tensors have room for whose length depends on data, by name.
        obstacles: notes what is in the way instead of raising, as far as a graph can be made
            without it: of what is imported, with stand-ins for what is not.

    Raises:
        MdlcError: the model is damaged or uses what mdlc does not have; see onnx_load.
    """
    model, folder = load_model(source)
    counts = Counts(bounds or {})
    name = _name_of(source, model)
    opened, changed = reopened(model, shapes or {})
    try:
        return _import_graph(opened, folder, shapes or {}, fixed or {}, counts, name, obstacles)
    except MdlcError as error:
        if not changed:
            raise
        raise MdlcError(
            f"{error.reason}; --shape gives {changed}",
            node=error.node,
            hint="give the size that the model was exported for, or export it for another",
        ) from error


def _name_of(source: Source, model: onnx.ModelProto) -> str:
    if isinstance(source, str | os.PathLike):
        return Path(source).stem
    return str(model.graph.name) or "model"


def _import_graph(
    model: onnx.ModelProto,
    folder: Path | None,
    shapes: Mapping[str, Sequence[int]],
    fixed: Mapping[str, float | Sequence[float]],
    counts: Counts,
    name: str,
    obstacles: Obstacles | None,
) -> Graph:
    proto = model.graph
    importer = _Importer(opsets_of(model), folder, declared_shapes(proto), counts, obstacles)
    importer.check_operators(proto.node)
    nodes = live_nodes(ordered_nodes(proto), proto)
    values: dict[str, Value] = {}
    values.update(importer.weights(proto, nodes))
    weights = {tensor.name for tensor in proto.initializer}
    inputs = import_inputs([i for i in proto.input if i.name not in weights], shapes, fixed)
    values.update((node.name, node) for node in inputs)
    importer.run(nodes, values)
    if obstacles is not None and (obstacles.found or obstacles.unseen):
        return _what_is_left(inputs, values, obstacles, name)
    outputs = [_tensor(value, o.name) for value, o in
               zip(importer.outputs(proto, values), proto.output, strict=True)]  # fmt: skip
    tensors = {key: value for key, value in values.items() if isinstance(value, Node)}
    counts.check_asked()
    open_axes = {name: list(counts.of(node)) for name, node in tensors.items()}
    check_declared(proto, weights, tensors, open_axes)
    # What has no elements is known: nothing is handed over at run time.
    given = [node for node in inputs if node.constant is None]
    graph = Graph(tuple(given), tuple(outputs), tuple(o.name for o in proto.output), name)
    return counts.counted(graph)


def _what_is_left(
    inputs: Sequence[Node], values: Mapping[str, Value], obstacles: Obstacles, name: str
) -> Graph:
    """A graph of all that was imported, up to what nothing reads."""
    stand_ins = list(obstacles.stand_ins.values())
    tensors = dict.fromkeys(
        node for node in values.values() if isinstance(node, Node) and node.inputs
    )
    read = {source for node in ancestors(tensors) for source in node.inputs}
    leaves = [node for node in tensors if node not in read and node.type.size]
    given = [node for node in (*inputs, *stand_ins) if node.constant is None]
    return Graph(tuple(given), tuple(leaves), tuple(node.name for node in leaves), name)


def _tensor(value: Value, output: str) -> Node:
    if isinstance(value, Node):
        return value
    raise MdlcError("is a sequence, not a tensor", node=f"output {output!r}",
                    hint="export the model with tensors only")  # fmt: skip


@dataclass(frozen=True)
class _Importer:
    """Imports nodes of one model.

    Attributes:
        opsets: versions of the operator sets by domain.
        folder: where external data lies, if there is a folder.
        declared: shapes that the model gives for tensors.
        counts: what is known of tensors whose length depends on data.
        obstacles: what is in the way; None where the first obstacle is raised.
    """

    opsets: Mapping[str, int]
    folder: Path | None
    declared: Mapping[str, tuple[int, ...]]
    counts: Counts
    obstacles: Obstacles | None = None

    def check_operators(self, nodes: Sequence[onnx.NodeProto]) -> None:
        """Raises one MdlcError that names every operator that is missing, with its nodes."""
        if self.obstacles is None:
            check_operators(nodes, self.knows)

    def knows(self, proto: onnx.NodeProto) -> bool:
        """Whether an operator can be imported, by itself or as a function of others."""
        key = importer_key(proto)
        return (
            key in Op.importers
            or key in CONTROL
            or key in SEQUENCES
            or has_function(proto, self.opsets)
        )

    def weights(self, graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> dict[str, Node]:
        """The initialisers that are used."""
        used = {name for node in nodes for name in names_read(node)}
        used.update(output.name for output in graph.output)
        try:
            found = list(initializers(graph, self.folder, used))
        except MdlcError:
            if self.obstacles is None:
                raise
            found = []
            for name in sorted(used):
                try:
                    found += initializers(graph, self.folder, {name})
                except MdlcError as error:
                    self.obstacles.add(Obstacle(error))
        return {name: constant(value, name) for name, value in found}

    def run(self, nodes: Sequence[onnx.NodeProto], values: dict[str, Value]) -> None:
        """Imports nodes in order into `values`."""
        for proto in nodes:
            made: Sequence[Value | None]
            if self.obstacles is None:
                made = self.value(proto, values)
            else:
                imported = partial(self._known_value, proto, values)
                made = self.obstacles.value(proto, values, self.knows(proto), imported)
            for name, value in zip(proto.output, made, strict=False):
                if name and value is not None:
                    values[name] = value

    def _known_value(self, proto: onnx.NodeProto, values: Mapping[str, Value]) -> Sequence[Value]:
        """The same of an operator that mdlc may not have."""
        check_operators([proto], self.knows)
        return self.value(proto, values)

    def outputs(self, graph: onnx.GraphProto, values: Mapping[str, Value]) -> list[Value]:
        """What the outputs of a graph stand for."""
        for output in graph.output:
            if output.name not in values:
                raise MdlcError("is not computed by the operators that mdlc has",
                                node=f"output {output.name!r}",
                                hint="cut the model before it")  # fmt: skip
        return [values[output.name] for output in graph.output]

    def body(self, graph: onnx.GraphProto, values: Mapping[str, Value]) -> list[Value]:
        """The outputs of a subgraph among the tensors around it."""
        self.check_operators(graph.node)
        # Names that the body makes hide those around it.
        own = {output for node in graph.node for output in node.output}
        scope = {name: value for name, value in values.items() if name not in own}
        hidden = {tensor.name for tensor in graph.initializer}
        nodes = live_nodes(ordered_nodes(graph, scope.keys() - hidden), graph)
        scope.update(self.weights(graph, nodes))
        self.run(nodes, scope)
        return self.outputs(graph, scope)

    def fold(self, node: Node) -> Node:
        """A node that was made here, evaluated where its inputs are constants."""
        return fold(node)

    def value(self, proto: onnx.NodeProto, values: Mapping[str, Value]) -> Sequence[Value]:
        """What the outputs of a node stand for."""
        inputs: list[Value | None] = []
        for name in proto.input:
            if name and name not in values:
                raise MdlcError(f"reads the tensor {name!r}, an output that mdlc does not compute",
                                node=describe(proto), hint="cut the model before it")  # fmt: skip
            inputs.append(values[name] if name else None)
        key = importer_key(proto)
        special = CONTROL.get(key) or SEQUENCES.get(key)
        if any(isinstance(value, tuple) for value in inputs):
            special = special or ALSO_SEQUENCES.get(key)
            if special is None:
                raise MdlcError("reads a sequence", node=describe(proto),
                                hint="export the model with tensors only")  # fmt: skip
        if special is not None:
            opset = self.opsets[""]
            return special(ControlNode(proto, inputs, values, self, opset, self.folder))
        tensors = [value if isinstance(value, Node) else None for value in inputs]
        while tensors and tensors[-1] is None:
            tensors.pop()
        # First of all: a function would take no notice of attributes that it does not know.
        if proto.domain in ONNX_DOMAINS and not is_microsoft(proto):
            check_node(self.described(proto, tensors), proto)
        if key not in Op.importers:
            return self.function(proto, tensors)
        try:
            return self.settled(proto, tensors)
        except MdlcError as error:
            # Some forms of an operator are imported only as the function that it is.
            if not has_function(proto, self.opsets):
                raise
            try:
                return self.function(proto, tensors)
            except MdlcError:
                raise error from None

    def function(self, proto: onnx.NodeProto, inputs: Sequence[Node | None]) -> list[Value]:
        """The outputs of a node by the operators that it stands for."""
        where = describe(proto)
        try:
            body = function_body(proto, inputs, self.opsets)
        except MdlcError:
            raise
        except Exception as error:  # whatever the onnx package makes of damaged nodes
            raise MdlcError("its attributes and inputs do not fit", node=where,
                            hint=EXPORT_AGAIN) from error  # fmt: skip
        if body is None:
            raise MdlcError("its inputs and attributes are not supported", node=where,
                            hint="export the model with simpler operators")  # fmt: skip
        inner = _Importer(body.opsets, None, self.declared, self.counts)
        inner.check_operators(body.nodes)
        values: dict[str, Value] = {
            name: node for name, node in zip(proto.input, inputs, strict=False) if node is not None
        }
        inner.run(body.nodes, values)
        missing = [name for name in proto.output if name and name not in values]
        if missing:
            raise MdlcError(f"its output {missing[0]!r} is not supported", node=where,
                            hint="cut the model before it")  # fmt: skip
        return [values[name] if name else () for name in proto.output]

    def settled(self, proto: onnx.NodeProto, inputs: list[Node | None]) -> list[Node]:
        """The nodes for the outputs of an ONNX node whose parameters may come at run time."""
        found = None
        if proto.domain in ONNX_DOMAINS:
            attributes = attributes_of(proto, self.folder, describe(proto))
            shapes = [self.declared.get(name) for name in proto.output]
            found = choices(Unsettled(proto.op_type, self.opsets[""], inputs, shapes, attributes))
        if found is None:
            return self.node(proto, inputs)
        results = []
        for value in found.values:
            given = list(inputs)
            given[found.index] = constant(value)
            results.append(self.node(proto, given))
        parameter = inputs[found.index]
        assert parameter is not None
        return [
            chosen(parameter, found, every, name)
            for every, name in zip(zip(*results, strict=True), proto.output, strict=False)
        ]

    def described(self, proto: onnx.NodeProto, inputs: Sequence[Node | None]) -> OnnxNode:
        """A node as operators and the specification see it."""
        attributes = attributes_of(proto, self.folder, describe(proto))
        opset = self.opsets.get(proto.domain, 1)
        return OnnxNode(
            proto.op_type, opset, inputs, tuple(proto.output), attributes, node_label(proto),
            [self.declared.get(name) for name in proto.output], self.counts,
        )  # fmt: skip

    def node(self, proto: onnx.NodeProto, inputs: list[Node | None]) -> list[Node]:
        """The nodes for the outputs of an ONNX node, folded where they can be."""
        where = describe(proto)
        n = self.described(proto, inputs)
        try:
            made = Op.importers[importer_key(proto)].from_onnx(n)
            found = [made] if isinstance(made, Node) else list(made)
            for node in found:
                check_shape(node.shape, where, allow_empty=True)
            made_of = self.counts.closed(folded(found, inputs), inputs)
            for node in made_of:
                self.counts.of(node)
            return made_of
        except MdlcError as error:
            if error.node and error.node.startswith("node "):
                raise
            raise n.error(error.reason, error.hint) from error
        except (MemoryError, OverflowError) as error:
            raise n.error("its attributes or inputs make no sense", EXPORT_AGAIN) from error
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
