"""First and second moments of what the weights of a layer are multiplied by."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.types import Array
from mdlc.quantization.calibrate import Inputs, Runner, batches, probe, tell_seen
from mdlc.quantization.layers import Assignment, is_product

# Output pixels (or rows) of a layer that are looked at for every input of the network.
PIXELS = 512
# Elements of the second moments of a layer, beyond which only the first are kept.
MAX_SECOND = 1 << 24


@dataclass
class Moments:
    """Of the vectors x that a layer's weights [M, K] are multiplied by, in each of its groups.

    Attributes:
        count: vectors seen.
        first: their sum [G, K].
        second: the sum of x x' [G, K, K]; None for a layer too large.
    """

    count: int
    first: Array
    second: Array | None

    @property
    def mean(self) -> Array:
        """E[x], [G, K]."""
        return self.first / max(self.count, 1)

    @property
    def covariance(self) -> Array | None:
        """E[x x'] - E[x] E[x]', [G, K, K]."""
        if self.second is None:
            return None
        mean = self.mean
        found: Array = self.second / max(self.count, 1) - mean[:, :, None] * mean[:, None, :]
        return found

    def add(self, vectors: Array) -> None:
        """Takes in vectors [G, P, K]."""
        wide = vectors.astype(np.float64)
        self.count += vectors.shape[1]
        self.first += wide.sum(1)
        if self.second is not None:
            self.second += wide.transpose(0, 2, 1) @ wide


def layer_vectors(node: Node, x: Array, pixels: Array | None = None) -> Array:
    """What a product's weights are multiplied by, as [G, P, K] for P pixels or rows.

    Args:
        x: the layer's input.
        pixels: indices of the output pixels (or rows) wanted; all where it is None.
    """
    op, w = node.op, node.inputs[1]
    if not isinstance(op, Conv2D):
        rows = x.reshape(-1, x.shape[-1])
        return (rows if pixels is None else rows[pixels])[None]
    height, width = w.shape[2:]
    patches = op.window((height, width)).patches(x, 0.0)  # N, C, OH, OW, kH, kW
    n, channels, rows_, columns = patches.shape[:4]
    if pixels is None:
        pixels = np.arange(n * rows_ * columns)
    at = np.unravel_index(pixels, (n, rows_, columns))
    chosen = patches[at[0], :, at[1], at[2]]  # P, C, kH, kW
    grouped = chosen.reshape(len(pixels), op.groups, channels // op.groups * height * width)
    return np.ascontiguousarray(grouped.transpose(1, 0, 2))


def groups_of(node: Node) -> int:
    """Groups of a product's channels."""
    return node.op.groups if isinstance(node.op, Conv2D) else 1


def layer_moments(
    graph: Graph,
    assignment: Assignment,
    inputs: Iterable[Inputs],
    runner: Runner,
    *,
    second: bool = True,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Moments]:
    """Moments for every integer product, by its key, over a set of inputs.

    The pixels looked at are the same on every run.

    Args:
        graph: the float graph.
        second: whether second moments are wanted.
    """
    layers = [n for n in graph.order() if n in assignment.integer and is_product(n)]
    found: dict[str, Moments] = {}
    for node in layers:
        groups = groups_of(node)
        depth = int(np.prod(node.inputs[1].shape[1:]))
        small = second and groups * depth * depth <= MAX_SECOND
        found[assignment.keys[node]] = Moments(
            0, np.zeros((groups, depth)), np.zeros((groups, depth, depth)) if small else None
        )
    generator = np.random.default_rng(0)
    read = {node.inputs[0]: assignment.keys[node.inputs[0]] for node in layers}
    inner = {node: key for node, key in read.items() if node not in graph.inputs}
    run_many = runner(probe(graph, inner)) if inner else None
    seen = 0
    for group in batches(inputs):
        traced = run_many(group) if run_many else [{} for _ in group]
        for frame, values in zip(group, traced, strict=True):
            for node in layers:
                source = node.inputs[0]
                x = values[read[source]] if source in inner else frame[source.name]
                pixels = node.type.size // node.inputs[1].shape[0]
                chosen = generator.permutation(pixels)[:PIXELS] if pixels > PIXELS else None
                found[assignment.keys[node]].add(layer_vectors(node, x, chosen))
        seen += len(group)
        tell_seen(progress, "measuring what layers multiply", seen, inputs)
    return found
