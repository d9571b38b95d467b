"""Dead channels go, from their producer and from all who carry or read them.

A channel is dead if no one reads it (every weight on it is zero), or if it is constant and its
readers can take the constant into their biases. Channels that element-wise operators,
depthwise convolutions, sums, concats and the like tie together live and die together: they form
classes (union-find over (tensor, channel)), and a class goes only as a whole.

Where a number of channels is a multiple of four, it stays one: a layer of 15 channels takes the
time of one of 16 on any vector unit, and loses algorithms that want whole vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from networkx.utils import UnionFind

from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.dense import Dense
from mdlc.compiler.types import Array

MAX_ROUNDS = 32
MIN_LANES = 4  # the lanes of the narrowest vectors
Kept = Callable[[Node], Array]
Key = tuple[Node, int]


def remove_dead_channels(graph: Graph) -> Graph:
    """Removes dead channels until there are none; the network's outputs stay whole."""
    for _ in range(MAX_ROUNDS):
        found = Channels(graph).dead()
        if not found:
            break
        graph, _ = remove_channels(graph, found)
    return graph


def channel_count(node: Node) -> int:
    """Channels (axis 1) of a node's output; 0 where it has no such axis."""
    return node.shape[1] if node.type.rank >= 2 else 0


def mixes_channels(node: Node) -> bool:
    """Whether the node mixes channels by constant weights [M, C, ...]."""
    op = node.op
    if not isinstance(op, Conv2D | Dense) or (isinstance(op, Dense) and node.type.rank != 2):
        return False
    if any(source.constant is None for source in node.inputs[1:3]):
        return False
    return isinstance(op, Dense) or op.groups == 1


@dataclass
class Channels:
    """What is known of every channel of a graph."""

    graph: Graph
    constants: dict[Node, Array] = field(default_factory=dict)
    classes: UnionFind[Key] = field(default_factory=UnionFind)

    def dead(self) -> dict[Node, Array]:
        """For each node that loses channels, a mask of those that stay."""
        order = [node for node in self.graph.order() if channel_count(node)]
        for node in order:
            self.constants[node] = _constant_channels(node, self.constants)
        self.tie()
        alive = {self.classes[key] for key in self.required()}
        self._fill_vectors([node for node in order if node.constant is None], alive)
        masks: dict[Node, Array] = {}
        for node in order:
            mask = np.array([self.classes[node, c] in alive for c in range(channel_count(node))])
            if not mask.all() and node.constant is None:
                masks[node] = mask
        return self._without_empty(masks)

    def _fill_vectors(self, nodes: Sequence[Node], alive: set[Key]) -> None:
        """Adds dead classes to those alive until multiples of MIN_LANES are multiples again."""
        for node in nodes:
            count = channel_count(node)
            dead = [c for c in range(count) if self.classes[node, c] not in alive]
            if count % MIN_LANES or not dead or len(dead) == count:
                continue
            for c in dead:
                if (count - len(dead)) % MIN_LANES == 0:
                    break
                alive.add(self.classes[node, c])
                dead = [d for d in dead if self.classes[node, d] not in alive]

    def tie(self) -> None:
        """Joins channels that live and die together."""
        for node in self.graph.order():
            self._tie(node)

    def required(self, *, read: bool = True) -> set[Key]:
        """Channels that the network cannot do without.

        Args:
            read: whether those that weights read count.
        """
        found: set[Key] = set()
        for node in self.graph.order():
            if read or not mixes_channels(node):
                found |= self._required(node)
        for node in (*self.graph.outputs, *self.graph.inputs):
            found |= {(node, c) for c in range(channel_count(node))}
        return found

    def _without_empty(self, masks: dict[Node, Array]) -> dict[Node, Array]:
        """A tensor keeps at least one channel, and so does all that is tied to it."""
        empty = [node for node, mask in masks.items() if not mask.any()]
        saved = {self.classes[node, 0] for node in empty}
        if not saved:
            return masks
        result = {}
        for node, mask in masks.items():
            kept = mask | np.array([self.classes[node, c] in saved for c in range(len(mask))])
            if not kept.all():
                result[node] = kept
        return result

    def _maps(self, node: Node) -> tuple[Array | None, ...] | None:
        if not channel_count(node) or not node.inputs:
            return None
        return node.op.node_channel_map(node)

    def _tie(self, node: Node) -> None:
        maps = self._maps(node)
        if maps is None:
            if isinstance(node.op, Conv2D) and node.op.residual:
                for c in range(channel_count(node)):
                    self.classes.union((node, c), (node.inputs[-1], c))
            return
        for source, own in zip(node.inputs, maps, strict=True):
            if own is None or source.constant is not None:
                continue
            for c, tied in enumerate(own.tolist()):
                if tied >= 0:
                    self.classes.union((node, c), (source, tied))

    def _required(self, node: Node) -> set[Key]:
        """Channels that this node cannot do without."""
        found: set[Key] = set()
        if mixes_channels(node):
            x, weights = node.inputs[0], node.inputs[1].constant
            assert weights is not None
            read = np.any(weights.reshape(*weights.shape[:2], -1) != 0, axis=(0, 2))
            known = self.constants[x]
            padded = isinstance(node.op, Conv2D) and any(node.op.pads)
            folds = known == 0 if padded else ~np.isnan(known)
            return {(x, c) for c in np.flatnonzero(read & ~folds).tolist()}
        maps = self._maps(node)
        for index, source in enumerate(node.inputs):
            tied = maps is not None and maps[index] is not None
            if not tied and source.constant is None:
                found |= {(source, c) for c in range(channel_count(source))}
        if maps is None:  # an operator that can make no fewer channels than it does
            found |= {(node, c) for c in range(channel_count(node))}
        return found


def _constant_channels(node: Node, known: Mapping[Node, Array]) -> Array:
    """The value of every channel that is the same everywhere; NaN for the others."""
    if node.type.rank not in (2, 4) or not node.inputs or node.constant is not None:
        return np.full(channel_count(node), np.nan)
    sources = [known.get(source, np.full(0, np.nan)) for source in node.inputs]
    return node.op.constant_channels(node, sources)


def remove_channels(graph: Graph, masks: Mapping[Node, Array]) -> tuple[Graph, dict[Node, Node]]:
    """The graph without some channels, and the new node for every old one.

    Args:
        masks: for each node that loses channels, which stay; whole classes, and some of each.
    """
    constants = Channels(graph)
    for node in graph.order():
        if channel_count(node):
            constants.constants[node] = _constant_channels(node, constants.constants)
    done: dict[Node, Node] = {}

    def kept(node: Node) -> Array:
        return masks.get(node, np.ones(channel_count(node), np.bool_))

    for node in graph.order():
        sources = [done[source] for source in node.inputs]
        touched = node in masks or any(source in masks for source in node.inputs)
        if not touched:
            done[node] = node.with_inputs(sources)
        elif isinstance(node.op, Conv2D | Dense):
            done[node] = _smaller(node, sources, kept, constants.constants)
        else:
            done[node] = _carried(node, sources, kept)
    return graph.with_outputs(done[node] for node in graph.outputs), done


def _smaller(node: Node, sources: list[Node], kept: Kept, constants: Mapping[Node, Array]) -> Node:
    """A convolution or dense layer on the channels that are left."""
    op, x = node.op, node.inputs[0]
    assert isinstance(op, Conv2D | Dense)
    weights, bias = node.inputs[1].constant, node.inputs[2].constant
    assert weights is not None
    assert bias is not None
    filters, channels = kept(node), kept(x)
    if isinstance(op, Conv2D) and op.groups == x.shape[1]:
        weights = weights[filters]
        op = replace(op, groups=int(channels.sum()))
    else:
        gone = np.where(channels, 0.0, np.nan_to_num(constants[x]))
        extra = (weights.reshape(*weights.shape[:2], -1).sum(2) * gone).sum(1)
        bias = (bias + extra).astype(bias.dtype)
        weights = weights[filters][:, channels] if op_mixes(op) else weights[filters]
    rest = []
    for old, new in zip(node.inputs[3:], sources[3:], strict=True):
        value = old.constant
        rest.append(constant(value[filters], old.name) if value is not None else new)
    return make(
        op,
        sources[0],
        constant(weights, node.inputs[1].name),
        constant(bias[filters], node.inputs[2].name),
        *rest,
        name=node.name,
        origin=node.origin,
    )


def op_mixes(op: Conv2D | Dense) -> bool:
    """Whether every output channel reads every input channel."""
    return isinstance(op, Dense) or op.groups == 1


def _carried(node: Node, sources: list[Node], kept: Kept) -> Node:
    """Any other operator on the channels that are left; constant operands lose theirs too."""
    mask = kept(node)
    operands = []
    maps = node.op.node_channel_map(node)
    for index, (old, new) in enumerate(zip(node.inputs, sources, strict=True)):
        value = old.constant
        if value is None or maps is None or maps[index] is None:
            operands.append(new)
            continue
        axis = 1 - (node.type.rank - value.ndim)
        own = maps[index]
        assert own is not None
        used = own[mask]
        operands.append(constant(np.take(value, used[used >= 0], axis=axis), old.name))
    return node.op.on_channels(operands, mask, [kept(s) for s in node.inputs], node.name)
