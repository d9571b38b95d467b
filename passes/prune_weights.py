"""The weights that matter least become zero, one by one or in blocks of output channels.

The smallest magnitudes of every layer go (Han et al., "Learning both Weights and Connections for
Efficient Neural Networks", arXiv 1506.02626). A block 1xN is N consecutive output channels that
read the same input through the same tap: what a vector of the target computes at once, so that a
kernel can leave it out (Elsen et al., "Fast Sparse ConvNets", arXiv 1911.09723).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.dense import Dense
from mdlc.compiler.types import Array

# Layers that read fewer channels (first layers, depthwise ones) keep all their weights: they have
# few, and the network needs them.
FEWEST_CHANNELS = 8
LARGEST_BLOCK = 64


def prunable_layers(graph: Graph, skip: Sequence[str] = ()) -> list[Node]:
    """The layers whose weights may be pruned, in order.

    Raises:
        MdlcError: `skip` names no layer.
    """
    layers = [
        node
        for node in graph.order()
        if isinstance(node.op, Conv2D | Dense) and node.inputs[1].constant is not None
    ]
    unknown = set(skip) - {node.name for node in layers}
    if unknown:
        raise MdlcError(
            f"there is no layer {sorted(unknown)[0]!r}",
            node="--skip-layer",
            hint="`mdlc inspect` lists the layers",
        )
    return [
        node
        for node in layers
        if node.name not in skip and node.inputs[1].shape[1] >= FEWEST_CHANNELS
    ]


def check_pruning(ratio: float, block: int) -> None:
    """Raises MdlcError if these cannot be a share of weights and a length of blocks."""
    if not 0 < ratio < 1:
        raise MdlcError(
            f"{ratio:g} is not a share of the weights",
            node="--prune-weights",
            hint="choose a share between 0 and 1, such as 0.7",
        )
    if not 1 <= block <= LARGEST_BLOCK:
        raise MdlcError(
            f"1x{block} is not a block size",
            node="--block",
            hint=f"choose 1x1 to 1x{LARGEST_BLOCK}",
        )


def weight_mask(weights: Array, ratio: float, block: int, layer: str) -> Array:
    """Which weights stay, as booleans of their shape.

    Args:
        weights: [output channels, ...].
        ratio: share of the blocks that goes; block: output channels of one.
        layer: its name, for messages.

    Raises:
        MdlcError: no weight would stay.
    """
    channels = len(weights)
    flat = np.abs(weights.astype(np.float64)).reshape(channels, -1)
    starts = np.arange(0, channels, block)
    sizes = np.diff(np.append(starts, channels))
    scores = np.add.reduceat(flat, starts, axis=0) / sizes[:, None]
    kept = round(scores.size * (1 - ratio))
    if kept < 1:
        raise MdlcError(
            f"{ratio:g} of {scores.size} blocks would empty it",
            node=f"layer {layer!r}",
            hint="prune less, or spare the layer (--skip-layer)",
        )
    stay = np.zeros(scores.size, np.bool_)
    stay[np.argsort(-scores.reshape(-1), kind="stable")[:kept]] = True
    whole = np.repeat(stay.reshape(scores.shape), sizes, axis=0)
    return whole.reshape(weights.shape)


def prune_weights(graph: Graph, ratio: float, block: int = 1, skip: Sequence[str] = ()) -> Graph:
    """The graph with that share of the weights of every layer zero, nothing retrained.

    Args:
        ratio: 0 < ratio < 1; block: output channels that are kept or pruned together.
        skip: names of layers that keep their weights.

    Raises:
        MdlcError: arguments that do not fit, or a layer that would be emptied.
    """
    check_pruning(ratio, block)
    layers = set(prunable_layers(graph, skip))
    if not layers:
        raise MdlcError("no layer has weights to prune", node="--prune-weights")
    done: dict[Node, Node] = {}
    for node in graph.order():
        inputs = [done[source] for source in node.inputs]
        if node in layers:
            weights = node.inputs[1].constant
            assert weights is not None
            mask = weight_mask(weights, ratio, block, node.name)
            pruned = np.where(mask, weights, np.float32(0)).astype(weights.dtype)
            inputs[1] = constant(pruned, node.inputs[1].name)
        done[node] = node if tuple(inputs) == node.inputs else replace(node, inputs=tuple(inputs))
    return Graph(
        tuple(done[node] for node in graph.inputs),
        tuple(done[node] for node in graph.outputs),
        graph.output_names,
        graph.name,
    )


def sparsity(node: Node) -> float:
    """The share of a layer's weights that is zero."""
    weights = node.inputs[1].constant
    assert weights is not None
    return 1 - float(np.count_nonzero(weights)) / max(1, weights.size)
