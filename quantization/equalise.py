"""Cross-layer equalisation: channels of a tensor brought to ranges alike.

A tensor has one scale, so a channel of small values gets few of its steps. Where only
convolutions read a tensor, a channel may be divided by a factor in the layer that makes it and
multiplied again in the weights of those that read it, with nothing changed in what the network
computes.

Sources: M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", ICCV 2019, section 4.1, for weights that share one scale; where every output channel
has its own, a channel's values take the place of its weights, as in G. Xiao et al.,
"SmoothQuant", ICML 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.ops.average_pool2d import AveragePool2D
from mdlc.compiler.ops.concat import Concat
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.leaky_relu import LeakyRelu
from mdlc.compiler.ops.max_pool2d import MaxPool2D
from mdlc.compiler.ops.relu import Relu
from mdlc.compiler.types import Array
from mdlc.quantization.layers import is_product

# f(a x) = a f(x) for a > 0, channel by channel; a Clip is not so.
ACTIVATIONS = (Relu, LeakyRelu)
POOLS = (MaxPool2D, AveragePool2D)
SWEEPS = 8
# Factors outside are cut off: a dead channel must not blow up another's weights.
LARGEST_FACTOR = 1e3

Weights = dict[Node, tuple[Array, Array]]


@dataclass(frozen=True)
class _Link:
    """A convolution, the tensor that it ends in, and where its channels are read.

    Attributes:
        readers: convolutions, and the first of their input channels that is this one's.
    """

    first: Node
    tensor: Node
    readers: tuple[tuple[Node, int], ...]


def equalise(graph: Graph, peaks: Mapping[Node, Array] | None = None) -> Graph:
    """The same network with equalised channels.

    Between convolutions there may be activations that only scale (Relu, LeakyRelu), pools and
    concatenations of channels.

    Args:
        peaks: largest magnitude of every channel of a tensor, as calibration measured it, for
            weights with a scale for every output channel. Without, the weights' own magnitudes
            are balanced, for weights with one scale a layer.
    """
    links = _links(graph)
    convolutions = {node for link in links for node in (link.first, *(r for r, _ in link.readers))}
    weights: Weights = {node: _values(node) for node in convolutions}
    values = {
        link.tensor: peaks[link.tensor].astype(np.float64)
        for link in links
        if peaks is not None and link.tensor in peaks
    }
    for _ in range(SWEEPS):
        for link in links:
            _balance(link, weights, values if peaks is not None else None)

    def visit(old: Node, fresh: Node) -> Node:
        if old not in weights:
            return fresh
        w, b = (part.astype(np.float32) for part in weights[old])
        names = (old.inputs[1].name, old.inputs[2].name)
        return make(
            fresh.op,
            fresh.inputs[0],
            constant(w, names[0]),
            constant(b, names[1]),
            name=old.name,
            origin=old.origin,
        )

    return graph.rebuild(visit)


def _links(graph: Graph) -> list[_Link]:
    users = graph.users()
    outputs = set(graph.outputs)
    found = []
    for node in graph.order():
        if not _is_conv(node):
            continue
        tensor = node
        while len(users[tensor]) == 1 and isinstance(users[tensor][0].op, ACTIVATIONS):
            (tensor,) = users[tensor]
        readers = _readers(tensor, users, outputs)
        if readers:
            found.append(_Link(node, tensor, readers))
    return found


def _readers(
    tensor: Node, users: Mapping[Node, list[Node]], outputs: set[Node]
) -> tuple[tuple[Node, int], ...]:
    """All convolutions that read a tensor; none where anything else does."""
    found: list[tuple[Node, int]] = []
    pending = [(tensor, 0)]
    while pending:
        source, offset = pending.pop()
        if source in outputs:
            return ()
        for user in users[source]:
            if _is_conv(user) and user.inputs[0] is source:
                depthwise = isinstance(user.op, Conv2D) and user.op.groups > 1
                if depthwise and user.op.groups != tensor.shape[1]:  # type: ignore[attr-defined]
                    return ()
                found.append((user, offset))
            elif isinstance(user.op, (*ACTIVATIONS, *POOLS)):
                pending.append((user, offset))
            elif isinstance(user.op, Concat) and user.op.axis == 1:
                if user.inputs.count(source) > 1:
                    return ()
                before = user.inputs[: user.inputs.index(source)]
                pending.append((user, offset + sum(s.shape[1] for s in before)))
            else:
                return ()
    return tuple(found)


def _is_conv(node: Node) -> bool:
    if not isinstance(node.op, Conv2D) or not is_product(node):
        return False
    # Every input channel belongs to one set of filters: full or depthwise convolutions.
    return node.op.groups == 1 or node.op.groups == node.inputs[0].shape[1]


def _values(node: Node) -> tuple[Array, Array]:
    w, b = node.inputs[1].constant, node.inputs[2].constant
    assert w is not None
    assert b is not None
    return w.astype(np.float64), b.astype(np.float64)


def _depthwise(node: Node) -> bool:
    return isinstance(node.op, Conv2D) and node.op.groups > 1


def _by_input(node: Node, w: Array) -> Array:
    """Weights seen from the input channels: [C, ...]."""
    channels = node.inputs[0].shape[1]
    if _depthwise(node):
        return w.reshape(channels, -1)
    return w.transpose(1, 0, 2, 3).reshape(channels, -1)


def _balance(link: _Link, weights: Weights, values: dict[Node, Array] | None) -> None:
    w, b = weights[link.first]
    count = len(w)
    if values is None:
        made = np.abs(w.reshape(count, -1)).max(1, initial=0)
    elif link.tensor in values:
        made = values[link.tensor]
    else:
        return
    read = np.zeros(count)
    for node, offset in link.readers:
        reach = np.abs(_by_input(node, weights[node][0])).max(1, initial=0)
        read = np.maximum(read, reach[offset : offset + count])
    alive = (made > 0) & (read > 0)
    factor = np.ones(count)
    factor[alive] = np.sqrt(made[alive] / read[alive])
    factor = np.clip(factor, 1 / LARGEST_FACTOR, LARGEST_FACTOR)
    weights[link.first] = w / factor.reshape(-1, 1, 1, 1), b / factor
    if values is not None:
        values[link.tensor] = made / factor
    for node, offset in link.readers:
        theirs, bias = weights[node]
        if _depthwise(node):
            spread = np.repeat(factor, len(theirs) // count).reshape(-1, 1, 1, 1)
            weights[node] = theirs * spread, bias
        else:
            scaled = theirs.copy()
            scaled[:, offset : offset + count] *= factor.reshape(1, -1, 1, 1)
            weights[node] = scaled, bias
