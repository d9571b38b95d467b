"""Channels that matter least go, physically: the network that is left is smaller and faster.

Channels that residual sums, depthwise convolutions, concats, shuffles and the like tie together
(passes/dead_channels.py) are cut together; all that are tied alike form a space, and each space
loses the same share. What is cut is chosen by the L1 norms of the filters that make a channel
(Li et al., "Pruning Filters for Efficient ConvNets", arXiv 1608.08710), or by what layers that
read it lose on calibration data (He et al., "Channel Pruning for Accelerating Very Deep Neural
Networks", arXiv 1707.06168; see passes/reconstruct.py).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.types import Array
from mdlc.passes.dead_channels import (
    Channels,
    Key,
    channel_count,
    mixes_channels,
    remove_channels,
    remove_dead_channels,
)


@dataclass(frozen=True)
class Space:
    """Channels that are tied alike, so that any of them may be cut.

    Attributes:
        channels: for each, the (tensor, channel) pairs that go with it.
        producers: the layers whose filters make them, in order.
        readers: the layers that mix them, in order.
    """

    channels: tuple[tuple[Key, ...], ...]
    producers: tuple[Node, ...]
    readers: tuple[Node, ...]

    def of(self, node: Node) -> Array:
        """The channel of a tensor that each channel of the space is; -1 where it is not in it."""
        return np.array([dict(keys).get(node, -1) for keys in self.channels])


# How much each channel of a space matters; the smallest are cut first.
Scores = Callable[[Space, int], Array]


@dataclass(frozen=True)
class Pruned:
    """The smaller network.

    Attributes:
        graph: without the channels, and without what is dead then.
        cut: the network without the channels alone; moved: its node for every node of the
            original; masks: for each of those that lost channels, which stayed.
    """

    graph: Graph
    cut: Graph
    moved: Mapping[Node, Node]
    masks: Mapping[Node, Array]


def channel_spaces(graph: Graph) -> list[Space]:
    """The spaces of a network's channels that may be cut, in the order of its layers."""
    channels = Channels(graph)
    order = {node: i for i, node in enumerate(graph.order())}
    channels.tie()
    fixed = {channels.classes[key] for key in channels.required(read=False)}
    members: dict[Key, list[Key]] = defaultdict(list)
    for node in order:
        if node.constant is None:
            for c in range(channel_count(node)):
                root = channels.classes[node, c]
                if root not in fixed:
                    members[root].append((node, c))
    alike: dict[tuple[int, ...], list[tuple[Key, ...]]] = defaultdict(list)
    for keys in members.values():
        alike[tuple(order[node] for node, _ in keys)].append(tuple(keys))
    found = []
    for tied in alike.values():
        nodes = dict.fromkeys(node for node, _ in tied[0])
        producers = tuple(node for node in nodes if mixes_channels(node))
        readers = tuple(n for n in order if mixes_channels(n) and n.inputs[0] in nodes)
        if producers:
            found.append(Space(tuple(tied), producers, readers))
    return sorted(found, key=lambda space: order[space.producers[0]])


def filter_norms(space: Space, _: int = 0) -> Array:
    """L1 norms of the filters that make each channel, relative to the mean of their layer."""
    scores = np.zeros(len(space.channels))
    for node in space.producers:
        weights = node.inputs[1].constant
        assert weights is not None
        norms = np.abs(weights.astype(np.float64)).reshape(len(weights), -1).sum(1)
        scores += norms[space.of(node)] / (norms.mean() or 1.0)
    return scores


def kept_count(channels: int, ratio: float, multiple: int) -> int:
    """Channels of a space that stay: a multiple of `multiple` where there are as many."""
    wanted = max(1, math.ceil(channels * (1 - ratio) - 1e-9))
    return min(channels, -(-wanted // multiple) * multiple)


def check_share(ratio: float) -> None:
    """Raises MdlcError if this cannot be a share of channels to cut."""
    if not 0 < ratio < 1:
        raise MdlcError(
            f"a share of {ratio:g} of the channels would "
            + ("empty every layer" if ratio >= 1 else "cut nothing"),
            node="--prune-channels",
            hint="choose a share between 0 and 1, such as 0.5",
        )


def prune_channels(
    graph: Graph,
    ratio: float,
    *,
    scores: Scores = filter_norms,
    multiple: int = 4,
    skip: Sequence[str] = (),
) -> Pruned:
    """Cuts a share of the channels of every space.

    Args:
        ratio: the share that goes, 0 < ratio < 1.
        scores: called with a space and the number of channels that will stay.
        multiple: what numbers of channels are rounded up to.
        skip: names of layers none of whose filters are cut.

    Raises:
        MdlcError: the ratio would empty a layer, or nothing can be cut.
    """
    check_share(ratio)
    spaces = channel_spaces(graph)
    _check_skipped(spaces, skip)
    counts = [
        len(space.channels)
        if any(node.name in skip for node in space.producers)
        else kept_count(len(space.channels), ratio, multiple)
        for space in spaces
    ]
    return _cut(graph, spaces, counts, scores)


def _check_skipped(spaces: Sequence[Space], skip: Sequence[str]) -> None:
    known = {node.name for space in spaces for node in space.producers}
    for name in skip:
        if name not in known:
            raise MdlcError(
                f"no layer {name!r} can be pruned",
                node="--skip-layer",
                hint=f"layers are {', '.join(map(repr, sorted(known)[:5]))} ...",
            )


def _cut(graph: Graph, spaces: Sequence[Space], counts: Sequence[int], scores: Scores) -> Pruned:
    """Cuts every space to a number of channels."""
    masks: dict[Node, Array] = {}
    for space, stay in zip(spaces, counts, strict=True):
        if stay == len(space.channels):
            continue
        ranked = np.argsort(-scores(space, stay), kind="stable")
        for index in ranked[stay:].tolist():
            for node, c in space.channels[index]:
                masks.setdefault(node, np.ones(channel_count(node), np.bool_))[c] = False
    if not masks:
        raise MdlcError(
            "no channel can be cut: "
            + (
                "every layer is too small"
                if spaces
                else "all are tied to inputs, outputs or operators that need them all"
            ),
            node="--prune-channels",
        )
    cut, moved = remove_channels(graph, masks)
    return Pruned(remove_dead_channels(cut), cut, moved, masks)


def macs(graph: Graph) -> int:
    """Multiply-adds of one inference."""
    return sum(
        node.op.cost([source.type for source in node.inputs], node.type).macs
        for node in graph.order()
        if node.constant is None and node.inputs
    )


def prune_to_macs(
    graph: Graph,
    share: float,
    *,
    scores: Scores = filter_norms,
    multiple: int = 4,
    skip: Sequence[str] = (),
) -> Pruned:
    """Cuts the smallest share of channels that leaves at most `share` of the multiply-adds.

    Numbers of channels go in steps; the last step is taken from the last layers on, by as many as
    it needs.

    Raises:
        MdlcError: no share does.
    """
    most = macs(graph) * share
    spaces = channel_spaces(graph)
    _check_skipped(spaces, skip)
    free = [not any(node.name in skip for node in space.producers) for space in spaces]

    def counts(ratio: float) -> list[int]:
        return [
            kept_count(len(space.channels), ratio, multiple) if may else len(space.channels)
            for space, may in zip(spaces, free, strict=True)
        ]

    def left(chosen: list[int]) -> int:
        if chosen == counts(0.0):
            return macs(graph)
        return macs(_cut(graph, spaces, chosen, filter_norms).graph)

    low, high = 0.0, 1.0
    for _ in range(10):
        middle = (low + high) / 2
        low, high = (middle, high) if left(counts(middle)) > most else (low, middle)
    if high == 1.0:
        raise MdlcError(
            f"cutting channels cannot leave only {share:g} of the multiply-adds",
            node="--target-macs",
            hint="choose more, or let channels be cut singly (--channel-multiple 1)",
        )
    fewer, chosen = counts(high), counts(low)
    for index in reversed(range(len(spaces))):
        if left(chosen) <= most:
            break
        chosen[index] = fewer[index]
    return _cut(graph, spaces, chosen, scores)
