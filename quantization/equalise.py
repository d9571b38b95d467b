"""Cross-layer equalisation: channels between two layers brought to ranges alike.

With one scale for a whole tensor, a channel of small values gets few of the steps. Where a layer
reads another's output and nobody else does, a channel's weights may be divided by a factor in
the first and multiplied in the second, with nothing changed in what the network computes.

Source: M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", ICCV 2019, section 4.1.
"""

from __future__ import annotations

import numpy as np

from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.leaky_relu import LeakyRelu
from mdlc.compiler.ops.relu import Relu
from mdlc.compiler.types import Array
from mdlc.quantization.layers import is_product

# f(a x) = a f(x) for a > 0; a Clip is not so.
HOMOGENEOUS = (Relu, LeakyRelu)
SWEEPS = 8
# Factors outside are cut off: a dead channel must not blow up another's weights.
LARGEST_FACTOR = 1e3


def equalise(graph: Graph) -> Graph:
    """The same network with equalised channels.

    Convolutions only (what stands between them keeps channels apart); a Relu or LeakyRelu may
    stand between. Several sweeps, as layers stand in chains.
    """
    pairs = _pairs(graph)
    weights = {node: _values(node) for pair in pairs for node in pair}
    for _ in range(SWEEPS):
        for first, second in pairs:
            _balance(first, second, weights)
    changed = {node: parts for node, parts in weights.items()}

    def visit(old: Node, fresh: Node) -> Node:
        if old not in changed:
            return fresh
        w, b = (part.astype(np.float32) for part in changed[old])
        names = (old.inputs[1].name, old.inputs[2].name)
        return make(
            fresh.op, fresh.inputs[0], constant(w, names[0]), constant(b, names[1]), name=old.name
        )

    return graph.rebuild(visit)


def _pairs(graph: Graph) -> list[tuple[Node, Node]]:
    """Convolutions whose output, perhaps through an activation, one other convolution reads."""
    users = graph.users()
    found = []
    for node in graph.order():
        if not _is_conv(node):
            continue
        before, at = node, node
        while len(users[at]) == 1 and at not in graph.outputs:
            (at,) = users[at]
            if _is_conv(at) and at.inputs[0] is before:
                found.append((node, at))
            if not isinstance(at.op, HOMOGENEOUS):
                break
            before = at
    return found


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


def _by_input(node: Node, w: Array) -> Array:
    """Weights seen from the input channels: [C, ...]."""
    channels = node.inputs[0].shape[1]
    assert isinstance(node.op, Conv2D)
    if node.op.groups == 1:
        return w.transpose(1, 0, 2, 3).reshape(channels, -1)
    return w.reshape(channels, -1)


def _balance(first: Node, second: Node, weights: dict[Node, tuple[Array, Array]]) -> None:
    (w1, b1), (w2, b2) = weights[first], weights[second]
    reach1 = np.abs(w1.reshape(len(w1), -1)).max(1, initial=0)
    reach2 = np.abs(_by_input(second, w2)).max(1, initial=0)
    alive = (reach1 > 0) & (reach2 > 0)
    factor = np.ones(len(w1))
    factor[alive] = np.sqrt(reach1[alive] * reach2[alive]) / reach2[alive]
    factor = np.clip(factor, 1 / LARGEST_FACTOR, LARGEST_FACTOR)
    weights[first] = w1 / factor.reshape(-1, 1, 1, 1), b1 / factor
    assert isinstance(second.op, Conv2D)
    if second.op.groups == 1:
        weights[second] = w2 * factor.reshape(1, -1, 1, 1), b2
    else:
        spread = np.repeat(factor, len(w2) // len(factor))
        weights[second] = w2 * spread.reshape(-1, 1, 1, 1), b2
