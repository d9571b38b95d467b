"""Least squares on calibration data: which channels to cut, and weights that make up for them.

He, Zhang and Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", arXiv 1707.06168:
channels are chosen such that the layers that read them can best be reconstructed from those left;
then weights are fitted anew to the outputs of the original network, layer by layer from the input
on, each on the inputs that the pruned network gives it (section 3.2), the sum with a residual
included. Where the paper chooses by LASSO on one factor a channel, channels are dropped one at a
time here, each time the one whose loss all weights that are left can best make up for (the step of
Hassibi and Stork, "Optimal Brain Surgeon", 1993, for all weights of a channel at once).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.types import Array
from mdlc.passes.dead_channels import mixes_channels, remove_dead_channels
from mdlc.passes.prune_channels import Pruned, Scores, Space, filter_norms

# Values of some nodes for every calibration input in turn.
Values = Callable[[Graph, Sequence[Node]], Iterator[Mapping[Node, Array]]]

# Pixels of each calibration input that a layer is fitted to; and no more than this in all.
PIXELS = 10
MAX_ROWS = 6000
# Ridge on the change of weights, relative to the mean square of the inputs.
RIDGE = 3e-3


def _patches(node: Node, x: Array, seed: int) -> Array:
    """Inputs of some output pixels of a layer: [rows, C, kH*kW]."""
    if not isinstance(node.op, Conv2D):
        return x[..., None].astype(np.float64)
    taps = node.op.window(node.inputs[1].shape[2:]).patches(x, 0.0)
    n, c, oh, ow = taps.shape[:4]
    rows, columns = _pixels(oh, ow, seed)
    chosen = taps[:, :, rows, columns]  # n, C, rows, kH, kW
    return np.moveaxis(chosen, 2, 1).reshape(n * len(rows), c, -1).astype(np.float64)


def _pixels(height: int, width: int, seed: int) -> tuple[Array, Array]:
    count = min(PIXELS, height * width)
    at = np.random.default_rng(seed).choice(height * width, count, replace=False)
    return at // width, at % width


def _outputs(node: Node, y: Array, seed: int) -> Array:
    """A tensor of a layer's output shape on the same pixels: [rows, M]."""
    if not isinstance(node.op, Conv2D):
        return y.astype(np.float64)
    rows, columns = _pixels(y.shape[2], y.shape[3], seed)
    return np.moveaxis(y[:, :, rows, columns], 2, 1).reshape(-1, y.shape[1]).astype(np.float64)


def _weights(node: Node) -> Array:
    value = node.inputs[1].constant
    assert value is not None
    return value.reshape(*value.shape[:2], -1).astype(np.float64)


def reconstruction_scores(graph: Graph, values: Values, seed: int = 0) -> Scores:
    """Scores of channels by what their readers lose without them.

    Args:
        values: evaluates nodes of a graph on the calibration inputs.
        seed: of the pixels that are looked at.
    """

    def scores(space: Space, stay: int) -> Array:
        if not space.readers:
            return filter_norms(space)
        sources = list(dict.fromkeys(node.inputs[0] for node in space.readers))
        rows: dict[Node, list[Array]] = {node: [] for node in space.readers}
        for number, found in enumerate(values(graph, sources)):
            for node in space.readers:
                rows[node].append(_patches(node, found[node.inputs[0]], seed + number))
        readers = [
            _Reader.of(np.concatenate(rows[node])[:MAX_ROWS], _weights(node), own)
            for node in space.readers
            if (own := space.of(node.inputs[0])).max() >= 0
        ]
        return _order_of_loss(readers, len(space.channels), stay)

    return scores


@dataclass
class _Reader:
    """A layer's linear part, as channels of its input are dropped.

    Attributes:
        weights: [C, kH*kW, M]; inverse: of the Gram matrix of its inputs, [C, kH*kW, C, kH*kW].
        own: for each channel of the space, that of the input, or -1.
        energy: the mean square of its outputs.
    """

    weights: Array
    inverse: Array
    own: Array
    energy: float

    @classmethod
    def of(cls, inputs: Array, weights: Array, own: Array) -> _Reader:
        """From inputs [rows, C, kH*kW] and weights [M, C, kH*kW]."""
        rows, channels, taps = inputs.shape
        flat = inputs.reshape(rows, -1)
        matrix = weights.reshape(len(weights), -1).T
        gram = flat.T @ flat / rows
        energy = float(np.sum((gram @ matrix) * matrix)) or 1.0
        gram[np.diag_indices_from(gram)] += RIDGE * np.trace(gram) / len(gram) + 1e-9
        inverse = np.linalg.inv(gram).reshape(channels, taps, channels, taps)
        return cls(matrix.reshape(channels, taps, -1), inverse, own, energy)

    def losses(self) -> Array:
        """Of every channel of the space: what the outputs lose if it goes and others make up."""
        channels = np.arange(len(self.weights))
        blocks = self.inverse[channels, :, channels]
        solved = np.linalg.solve(blocks, self.weights)
        loss = np.einsum("ctm,ctm->c", self.weights, solved) / self.energy
        return np.where(self.own >= 0, loss[self.own], 0.0)

    def drop(self, index: int) -> None:
        """Takes a channel of the space out."""
        c = int(self.own[index])
        if c < 0:
            return
        count, taps = self.weights.shape[:2]
        column = self.inverse[:, :, c].reshape(count * taps, taps)
        scaled = np.linalg.solve(self.inverse[c, :, c], column.T).T  # column H_cc^-1
        self.weights -= (scaled @ self.weights[c]).reshape(self.weights.shape)
        self.inverse -= (scaled @ column.T).reshape(self.inverse.shape)
        # What is gone is no longer looked at; its block stays invertible.
        self.inverse[c, :, c] = np.eye(taps)
        self.weights[c] = 0


def _order_of_loss(readers: Sequence[_Reader], count: int, stay: int) -> Array:
    """Scores that rank channels by the order in which they are dropped; those that stay are 0."""
    left = np.ones(count, np.bool_)
    scores = np.zeros(count)
    for dropped in range(count - stay):
        loss = sum((reader.losses() for reader in readers), np.zeros(count))
        worst = int(np.argmin(np.where(left, loss, np.inf)))
        for reader in readers:
            reader.drop(worst)
        left[worst] = False
        scores[worst] = dropped - count
    return scores


def refit(original: Graph, pruned: Pruned, values: Values, seed: int = 0) -> Graph:
    """The pruned network with the weights of all layers that lost inputs fitted anew.

    Args:
        values: evaluates nodes of a graph on the calibration inputs.
        seed: of the pixels that layers are fitted to.
    """
    current, moved = pruned.cut, dict(pruned.moved)
    layers = [
        node
        for node in original.order()
        if mixes_channels(node) and _depends(node.inputs[0], pruned.masks)
    ]
    wanted = _wanted(original, layers, pruned.masks, values, seed)
    for node in layers:
        fitted = _fit(current, moved[node], wanted[node], values, seed)
        current, changed = _replaced(current, moved[node], fitted)
        moved = {old: changed[new] for old, new in moved.items() if new in changed}
    return remove_dead_channels(current)


def _depends(node: Node, masks: Mapping[Node, Array]) -> bool:
    """Whether a tensor has changed: one of those that it is made of lost channels."""
    pending, seen = [node], {node}
    while pending:
        now = pending.pop()
        if now in masks:
            return True
        for source in now.inputs:
            if source not in seen:
                seen.add(source)
                pending.append(source)
    return False


def _has_residual(node: Node) -> bool:
    return isinstance(node.op, Conv2D) and node.op.residual


def _wanted(
    graph: Graph, layers: Sequence[Node], masks: Mapping[Node, Array], values: Values, seed: int
) -> dict[Node, Array]:
    """What each layer of the original gave before its activation: [rows, filters that stayed]."""
    read = [node.inputs[0] for node in layers]
    read += [node.inputs[-1] for node in layers if _has_residual(node)]
    rows: dict[Node, list[Array]] = {node: [] for node in layers}
    for number, found in enumerate(values(graph, read)):
        for node in layers:
            filters = masks.get(node, np.ones(node.shape[1], np.bool_))
            bias = node.inputs[2].constant
            assert bias is not None
            weights = _weights(node)[filters].reshape(int(filters.sum()), -1)
            x = _patches(node, found[node.inputs[0]], seed + number)
            y = x.reshape(len(x), -1) @ weights.T + bias[filters]
            if _has_residual(node):
                y += _outputs(node, found[node.inputs[-1]], seed + number)[:, filters]
            rows[node].append(y)
    return {node: np.concatenate(parts) for node, parts in rows.items()}


def _fit(
    graph: Graph, layer: Node, wanted: Array, values: Values, seed: int
) -> tuple[Array, Array]:
    """Weights and bias of a layer that bring its output nearest to what is wanted."""
    inputs: list[Array] = []
    residuals: list[Array] = []
    bias = layer.inputs[2].constant
    assert bias is not None
    read = [layer.inputs[0], *([layer.inputs[-1]] if _has_residual(layer) else [])]
    for number, found in enumerate(values(graph, read)):
        inputs.append(_patches(layer, found[layer.inputs[0]], seed + number))
        if _has_residual(layer):
            residuals.append(_outputs(layer, found[layer.inputs[-1]], seed + number))
    x = np.concatenate(inputs)[:MAX_ROWS]
    x = x.reshape(len(x), -1)
    weights = _weights(layer).reshape(layer.shape[1], -1)
    error = wanted[:MAX_ROWS] - x @ weights.T - bias
    if residuals:
        error -= np.concatenate(residuals)[:MAX_ROWS]
    means, shift = x.mean(axis=0), error.mean(axis=0)
    centred = x - means
    square = centred.T @ centred
    square[np.diag_indices_from(square)] += RIDGE * np.trace(square) / len(square) + 1e-9
    change = np.linalg.solve(square, centred.T @ (error - shift)).T
    fitted = (weights + change).reshape(layer.inputs[1].shape).astype(np.float32)
    return fitted, (bias + shift - change @ means).astype(np.float32)


def _replaced(
    graph: Graph, layer: Node, fitted: tuple[Array, Array]
) -> tuple[Graph, dict[Node, Node]]:
    """The graph with other weights and bias in one layer, and the new node for every old one."""
    done: dict[Node, Node] = {}
    for node in graph.order():
        inputs = [done[source] for source in node.inputs]
        if node is layer:
            inputs[1] = constant(fitted[0], node.inputs[1].name)
            inputs[2] = constant(fitted[1], node.inputs[2].name)
        done[node] = node if tuple(inputs) == node.inputs else replace(node, inputs=tuple(inputs))
    return graph.with_outputs(done[node] for node in graph.outputs), done
