"""How large the values of a network's tensors may become, channel by channel.

Two answers for every node. A proven one: interval arithmetic from what is known of the inputs,
where a sum of products is at most the sum of their magnitudes (Moore, Kearfott and Cloud,
"Introduction to Interval Analysis", 2009, section 2.3). It holds for any input, and is of use
behind activations that bound their result. And a likely one, where that says nothing: means and
standard deviations are carried through the network as if channels were independent and the taps of
a filter saw the same value (the worst case of a smooth picture), and values counted up to MARGIN
deviations from the mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.op import Elementwise, Op
from mdlc.compiler.ops.add import Add
from mdlc.compiler.ops.average_pool2d import AveragePool2D
from mdlc.compiler.ops.cast import Cast
from mdlc.compiler.ops.concat import Concat
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.conv_transpose2d import ConvTranspose2D
from mdlc.compiler.ops.convert_layout import ConvertLayout
from mdlc.compiler.ops.dense import Dense
from mdlc.compiler.ops.identity import Identity
from mdlc.compiler.ops.input import Input
from mdlc.compiler.ops.matmul import MatMul
from mdlc.compiler.ops.max_pool2d import MaxPool2D
from mdlc.compiler.ops.pad import Pad
from mdlc.compiler.ops.reduce import Reduce
from mdlc.compiler.ops.resize import Resize
from mdlc.compiler.ops.slice import Slice
from mdlc.compiler.ops.softmax import Softmax
from mdlc.compiler.types import Array, DType

MARGIN = 16.0
_HUGE = 1e30
# Points of the normal distribution and their weights, and magnitudes that stand for an interval.
_POINTS = np.linspace(-4, 4, 33)
_WEIGHTS = np.exp(-(_POINTS**2) / 2) / np.exp(-(_POINTS**2) / 2).sum()
_COARSE = np.linspace(-3, 3, 9)
_COARSE_WEIGHTS = np.exp(-(_COARSE**2) / 2) / np.exp(-(_COARSE**2) / 2).sum()
_SHARES = np.array([-1, -0.7, -0.4, -0.1, -1e-3, 0, 1e-3, 0.1, 0.4, 0.7, 1.0])


@dataclass(frozen=True)
class Values:
    """What is known of a tensor, by channel (one entry: of all channels).

    Attributes:
        most: no magnitude is larger, for any input; infinity where nothing is known.
        mean, deviation: of the values.
    """

    most: Array
    mean: Array
    deviation: Array

    @property
    def likely(self) -> float:
        """The largest magnitude that is counted with."""
        return float((np.abs(self.mean) + MARGIN * self.deviation).max())

    def of(self, channels: int) -> Values:
        """The same for so many channels; those that do not correspond are taken together."""
        if len(self.most) == channels:
            return self
        one = self.together() if len(self.most) > 1 else self
        return Values(*(np.repeat(each, channels) for each in (one.most, one.mean, one.deviation)))

    def together(self) -> Values:
        """All channels as one."""
        mean = self.mean.mean()
        square = (self.deviation**2 + (self.mean - mean) ** 2).max()
        return Values(self.most.max()[None], np.array([mean]), np.array([math.sqrt(square)]))


def values(most: float, mean: float, deviation: float) -> Values:
    """The same for all channels."""
    return Values(np.array([most]), np.array([mean]), np.array([deviation]))


PIXELS = values(255.0, 127.5, 73.6)
# Of an input of which nothing is known: about normalised.
UNKNOWN = values(math.inf, 0.0, 1.0)


@dataclass(frozen=True)
class Peak:
    """The largest magnitudes that a node computes with, its sums and its result.

    Attributes:
        proven: for any input; likely: counted with. See the module.
    """

    proven: float
    likely: float


def value_bounds(graph: Graph, inputs: Mapping[str, Values] | None = None) -> dict[Node, Peak]:
    """The peaks of all float nodes.

    Args:
        inputs: what is known of the inputs, by name; of bytes all is.
    """
    found: dict[Node, Values] = {}
    peaks: dict[Node, Peak] = {}
    with np.errstate(all="ignore"):
        for node in graph.order():
            inner: list[Values] = []
            made = _values(node, [found[source] for source in node.inputs], inputs or {}, inner)
            found[node] = made
            if node.type.dtype.is_float and node.constant is None:
                every = [made, *inner]
                peaks[node] = Peak(
                    max(float(each.most.max()) for each in every),
                    max(each.likely for each in every),
                )
    return peaks


def _values(
    node: Node, given: Sequence[Values], inputs: Mapping[str, Values], inner: list[Values]
) -> Values:
    """What a node makes; `inner` gets what its sums come by."""
    op = node.op
    if isinstance(op, Input):
        default = PIXELS if node.type.dtype is DType.U8 else UNKNOWN
        return inputs.get(node.name, default)
    if node.constant is not None:
        return _constant(node)
    if isinstance(op, Conv2D | Dense | ConvTranspose2D) and node.inputs[1].constant is not None:
        return _product(node, given, inner)
    if isinstance(op, MatMul):
        a, b = given[0].together(), given[1].together()
        depth = node.inputs[0].shape[-1]
        square = (a.deviation**2 + a.mean**2) * (b.deviation**2 + b.mean**2)
        return Values(a.most * b.most * depth, np.zeros(1), np.sqrt(square * depth))
    if isinstance(op, Elementwise) and not isinstance(op, Cast):
        channels = node.shape[1] if len(node.shape) in (2, 4) else 1
        return elementwise(op, [each.of(channels) for each in given])
    if isinstance(op, MaxPool2D):
        return Values(given[0].most, given[0].mean + given[0].deviation, given[0].deviation)
    if isinstance(op, AveragePool2D):
        count = math.prod(op.window.kernel)
        one = given[0]
        inner.append(Values(one.most * count, one.mean * count, one.deviation * count))
        return given[0]
    if isinstance(op, Concat) and op.axis == 1 and len(node.shape) in (2, 4):
        parts = [v.of(s.shape[1]) for v, s in zip(given, node.inputs, strict=True)]
        return Values(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("most", "mean", "deviation")
            )
        )
    if isinstance(op, Concat):
        joined = [each.together() for each in given]
        return Values(
            np.max([each.most for each in joined], axis=0),
            joined[0].mean,
            np.max([each.deviation + abs(each.mean - joined[0].mean) for each in joined], axis=0),
        )
    if isinstance(op, Softmax) and not op.log:
        return values(1.0, 0.0, 1 / MARGIN)
    if isinstance(op, Reduce):
        if op.kind in ("mean", "max", "min"):
            return _same_channels(node, given[0])
        count = node.inputs[0].type.size // max(1, node.type.size)
        one = given[0].together()
        return Values(one.most * np.inf, one.mean * count, one.deviation * count)
    if isinstance(op, Cast | ConvertLayout | Identity | Pad | Resize):
        grows = 2.0 if isinstance(op, Resize) else 1.0
        return Values(given[0].most * grows, given[0].mean, given[0].deviation)
    moves = type(op).__name__ in _MOVEMENTS
    if not given:
        return UNKNOWN
    if moves:
        return _same_channels(node, given[0])
    one = given[0].together()
    return Values(np.array([np.inf]), np.zeros(1), np.maximum(1.0, one.deviation + abs(one.mean)))


_MOVEMENTS = frozenset(
    {
        "ChannelShuffle",
        "DepthToSpace",
        "Expand",
        "Gather",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Tile",
        "Transpose",
    }
)


def _same_channels(node: Node, given: Values) -> Values:
    """The values of an operator that moves them; channels that stay in place stay apart."""
    source = node.inputs[0].shape
    kept = len(source) in (2, 4) and len(node.shape) in (2, 4) and source[1] == node.shape[1]
    if kept and not isinstance(node.op, Slice) and type(node.op).__name__ in ("Reshape", "Reduce"):
        return given
    return given.together()


def _constant(node: Node) -> Values:
    value = node.constant
    assert value is not None
    if value.dtype.kind not in "fiub" or not value.size:
        return UNKNOWN
    wide = value.astype(np.float64)
    if value.ndim in (1, 3, 4) and value.size == value.shape[-3 if value.ndim > 1 else 0]:
        flat = wide.reshape(-1)  # one for each channel
        return Values(np.abs(flat), flat, np.zeros(flat.size))
    return Values(np.abs(wide).max()[None], np.array([wide.mean()]), np.array([wide.std()]))


def _product(node: Node, given: Sequence[Values], inner: list[Values]) -> Values:
    """A convolution or dense layer with its residual sum and activation."""
    op = node.op
    assert isinstance(op, Conv2D | Dense | ConvTranspose2D)
    weights = node.inputs[1].constant
    assert weights is not None
    if isinstance(op, Dense):
        groups, taps = 1, weights[:, :, None]
        channels = weights.shape[1]
    else:
        groups, channels = op.groups, node.inputs[0].shape[1]
        flat = weights.reshape(*weights.shape[:2], -1)
        if isinstance(op, ConvTranspose2D):  # [C, M / g, taps] to [M, C / g, taps]
            flat = flat.reshape(groups, -1, *flat.shape[1:]).swapaxes(1, 2)
            flat = flat.reshape(-1, *flat.shape[2:])
        taps = flat
    wide = taps.astype(np.float64)
    filters = wide.shape[0]
    x = given[0].of(channels)
    if isinstance(op, Conv2D) and op.shift:
        shift = np.array(op.shift, np.float64)
        x = elementwise(Add(), [x, Values(np.abs(shift), shift, np.zeros(shift.size))])
    most, mean, variance = (
        np.repeat(each.reshape(groups, 1, -1), filters // groups, 1).reshape(filters, -1)
        for each in (x.most, x.mean, x.deviation**2)
    )
    magnitudes, sums = np.abs(wide).sum(2), wide.sum(2)
    squares = np.maximum((wide**2).sum(2), sums**2)
    bias = node.inputs[2].constant if len(node.inputs) > 2 else None
    added = np.zeros(filters) if bias is None else bias.reshape(-1).astype(np.float64)
    # 0 * infinity: a weight of zero takes nothing.
    peak = np.where(magnitudes > 0, magnitudes * most, 0).sum(1) + np.abs(added)
    total = Values(peak, (sums * mean).sum(1) + added, np.sqrt((squares * variance).sum(1)))
    inner.append(Values(peak, (magnitudes * np.abs(mean)).sum(1) + np.abs(added), total.deviation))
    if isinstance(op, Conv2D) and op.residual:
        other = given[-1].of(filters)
        total = Values(
            total.most + other.most,
            total.mean + other.mean,
            np.sqrt(total.deviation**2 + other.deviation**2),
        )
        inner.append(total)
    if op.activation is None:
        return total
    operands = [total]
    if op.activation.arity == 2:
        operands.append(given[3].of(filters))
    return elementwise(op.activation, operands)


def elementwise(op: Op, operands: Sequence[Values]) -> Values:
    """An operator's result at points of its operands' intervals, and of their distributions."""
    bounded = [np.minimum(each.most, _HUGE) for each in operands]
    if len(operands) == 1:
        most = _evaluated(op, [bounded[0][:, None] * _SHARES])
        points, weights = _POINTS[None, :], _WEIGHTS
        spread = [operands[0].mean[:, None] + operands[0].deviation[:, None] * points]
    elif len(operands) == 2:
        first, second = (part.reshape(-1) for part in np.meshgrid(_SHARES, _SHARES))
        most = _evaluated(op, [bounded[0][:, None] * first, bounded[1][:, None] * second])
        first, second = (part.reshape(-1) for part in np.meshgrid(_COARSE, _COARSE))
        weights = np.outer(_COARSE_WEIGHTS, _COARSE_WEIGHTS).reshape(-1)
        spread = [
            each.mean[:, None] + each.deviation[:, None] * points
            for each, points in zip(operands, (first, second), strict=True)
        ]
    else:  # Where and the like: one of its operands
        return Values(
            np.max([each.most for each in operands], axis=0),
            np.max([np.abs(each.mean) for each in operands], axis=0),
            np.max([each.deviation for each in operands], axis=0),
        )
    largest = np.nan_to_num(np.abs(most), nan=0.0, posinf=np.inf).max(1)
    largest = np.where(largest >= _HUGE / 1e3, np.inf, largest)
    made = np.nan_to_num(_evaluated(op, spread), nan=0.0, posinf=_HUGE, neginf=-_HUGE)
    mean = (made * weights).sum(1)
    deviation = np.sqrt((((made - mean[:, None]) ** 2) * weights).sum(1))
    return Values(largest, mean, deviation)


def _evaluated(op: Op, operands: Sequence[Array]) -> Array:
    found = op.reference(*operands)
    return np.broadcast_to(np.asarray(found, np.float64), operands[0].shape)
