"""The float graph with QuantizeLinear and DequantizeLinear where its tensors have 8 bits.

passes/lower_quantized.py makes integer operators of it, as of models that come that way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.dequantize_linear import DequantizeLinear
from mdlc.compiler.ops.quantize_linear import QuantizeLinear
from mdlc.compiler.types import Array
from mdlc.passes.quant_params import QuantParams
from mdlc.quantization.layers import Assignment, is_bytes, is_product
from mdlc.quantization.weights import QuantizedWeights, rounded_weights, weight_scales

# Chooses the integers of a layer: given its key, the weights, their scales and the bias.
Rounding = Callable[[str, "QuantizedWeights", "Node"], "QuantizedWeights"]


@dataclass(frozen=True)
class Quantized:
    """A graph with 8-bit tensors.

    Attributes:
        graph: with QuantizeLinear and DequantizeLinear.
        tensors: for every tensor that has 8 bits, and every product, its float form, by key.
        assignment: what became of what.
    """

    graph: Graph
    tensors: Mapping[str, Node]
    assignment: Assignment


def quantize(
    assignment: Assignment,
    *,
    per_tensor: bool = False,
    rounding: Rounding | None = None,
) -> Quantized:
    """Puts the pairs in, and the weights of integer layers as integers.

    Args:
        per_tensor: one scale for all weights of a layer, instead of one for every channel.
        rounding: instead of the nearest integers.
    """
    keys, params = assignment.keys, assignment.params
    tensors: dict[str, Node] = {}
    pairs: dict[Node, Node] = {}

    def pair(old: Node, fresh: Node) -> Node:
        if old not in pairs:
            pairs[old] = in_bytes(fresh, params[old], old.name)
            tensors[keys[old]] = pairs[old]
        return pairs[old]

    def visit(old: Node, fresh: Node) -> Node:
        if old not in assignment.integer:
            return fresh
        sources = list(fresh.inputs)
        for index, source in enumerate(old.inputs):
            if source in params and source not in assignment.integer and not is_bytes(source):
                sources[index] = pair(source, sources[index])
        if is_product(old):
            found = _weights(old, params[old.inputs[0]], per_tensor)
            if rounding is not None:
                found = rounding(keys[old], found, old)
            sources[1:3] = weight_nodes(found, old.inputs[1].name, old.inputs[2].name)
        fresh = fresh.with_inputs(sources)
        if old in assignment.wide:
            tensors[keys[old]] = fresh
            return fresh
        return fresh if old in assignment.inner else pair(old, fresh)

    graph = assignment.graph.rebuild(visit)
    return Quantized(graph, tensors, assignment)


def in_bytes(node: Node, params: QuantParams, name: str) -> Node:
    """A tensor rounded to 8 bits and widened again."""
    scale, zero = params.constants()
    q = make(QuantizeLinear(), node, scale, zero, name=name, layout_of=node)
    return make(DequantizeLinear(), q, scale, zero, name=name, layout_of=node)


def _weights(node: Node, x: QuantParams, per_tensor: bool) -> QuantizedWeights:
    w, b = node.inputs[1].constant, node.inputs[2].constant
    assert w is not None
    assert b is not None
    scales = weight_scales(w, b, x.scale, per_tensor=per_tensor)
    return QuantizedWeights(rounded_weights(w, scales), scales, b)


def weight_nodes(found: QuantizedWeights, name: str, bias_name: str) -> list[Node]:
    """Widened integers and the bias, as inputs of a product."""
    scales, zeros = found.scales, np.zeros(found.scales.shape, np.int8)
    if scales.size == 1:
        scales, zeros = scales.reshape(()), zeros.reshape(())
    parts = (constant(found.integers, name), constant(scales), constant(zeros))
    return [make(DequantizeLinear(0), *parts, name=name), constant(found.bias, bias_name)]


def with_bias(found: QuantizedWeights, bias: Array) -> QuantizedWeights:
    """The same integers with another bias."""
    return replace(found, bias=bias.astype(np.float32))
