"""Copies of ONNX nodes under other names: bodies of functions and loops where they are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx


def renamed(
    nodes: Sequence[onnx.NodeProto],
    names: Mapping[str, str],
    prefix: str,
    attributes: Mapping[str, onnx.AttributeProto] | None = None,
) -> list[onnx.NodeProto]:
    """Nodes whose tensors have other names, subgraphs included.

    Args:
        names: what tensors of the body are called by its user ("" for one that is absent); what
            the body makes itself, and is not among them, gets the prefix; others stay.
        attributes: of the call, for those that refer to them.
    """
    known = dict(names)
    for node in nodes:
        for output in filter(None, node.output):
            # A result that the user leaves out may still be read inside.
            known[output] = known.get(output) or f"{prefix}{output}"
    return [_node(node, known, prefix, attributes or {}) for node in nodes]


def renamed_graph(
    graph: onnx.GraphProto,
    names: Mapping[str, str],
    prefix: str,
    attributes: Mapping[str, onnx.AttributeProto] | None = None,
) -> onnx.GraphProto:
    """The same of a subgraph, whose own names hide those around it."""
    copy = onnx.GraphProto()
    copy.CopyFrom(graph)
    inner = dict(names)
    for value in (*copy.input, *copy.initializer):
        inner[value.name] = value.name = f"{prefix}{value.name}"
    for node in graph.node:
        inner.update({output: f"{prefix}{output}" for output in node.output if output})
    nodes = renamed(graph.node, inner, prefix, attributes)
    del copy.node[:]
    copy.node.extend(nodes)
    for value in copy.output:
        value.name = inner.get(value.name, value.name)
    del copy.value_info[:]
    return copy


def _node(
    node: onnx.NodeProto,
    names: Mapping[str, str],
    prefix: str,
    given: Mapping[str, onnx.AttributeProto],
) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name = prefix + (node.name or next(filter(None, node.output), node.op_type))
    copy.input[:] = [names.get(name, name) for name in node.input]
    copy.output[:] = [names.get(name, name) for name in node.output]
    del copy.attribute[:]
    for attribute in node.attribute:
        filled = onnx.AttributeProto()
        filled.CopyFrom(attribute)
        if attribute.ref_attr_name:
            if attribute.ref_attr_name not in given:
                continue
            filled.CopyFrom(given[attribute.ref_attr_name])
            filled.name = attribute.name
        if filled.type == onnx.AttributeProto.GRAPH:
            filled.g.CopyFrom(renamed_graph(filled.g, names, prefix, given))
        copy.attribute.append(filled)
    return copy
