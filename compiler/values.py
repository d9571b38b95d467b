"""What is known of the values of a tensor, and how operators carry it along.

Two answers. A proven one: interval arithmetic, where a sum of products is at most the sum of their
magnitudes (Moore, Kearfott and Cloud, "Introduction to Interval Analysis", 2009, section 2.3). It
holds for any input. And a likely one: means and standard deviations are carried through the
network as if channels were independent and the taps of a filter saw the same value (the worst case
of a smooth picture), and values counted up to MARGIN deviations from the mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

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
        sums: the same of what the operator adds up on the way, where that may be larger.
    """

    most: Array
    mean: Array
    deviation: Array
    sums: tuple[Values, ...] = ()

    @property
    def likely(self) -> float:
        """The largest magnitude that is counted with."""
        return float((np.abs(self.mean) + MARGIN * self.deviation).max())

    def of(self, channels: int) -> Values:
        """The same for so many channels; those that do not correspond are taken together."""
        if len(self.most) == channels:
            return self
        one = self.together() if len(self.most) > 1 else self
        return one.chosen(np.zeros(channels, np.intp))

    def together(self) -> Values:
        """All channels as one."""
        mean = self.mean.mean()
        square = (self.deviation**2 + (self.mean - mean) ** 2).max()
        return Values(self.most.max()[None], np.array([mean]), np.array([math.sqrt(square)]))

    def chosen(self, channels: Array) -> Values:
        """The channels of these numbers."""
        return Values(self.most[channels], self.mean[channels], self.deviation[channels])

    def times(self, factor: float) -> Values:
        """Of values as many times as large (0 times unknown is 0)."""
        most = np.where(self.most == 0, 0.0, self.most * abs(factor)) if factor else 0 * self.mean
        return Values(most, self.mean * factor, self.deviation * abs(factor))


def values(most: float, mean: float, deviation: float) -> Values:
    """The same for all channels."""
    return Values(np.array([most]), np.array([mean]), np.array([deviation]))


PIXELS = values(255.0, 127.5, 73.6)
# Of an input of which nothing is known: about normalised.
UNKNOWN = values(math.inf, 0.0, 1.0)


def of_type(dtype: DType) -> Values:
    """What an element type alone says: something where it is so narrow that all of it is used."""
    if dtype is DType.U8:
        return PIXELS
    if dtype is DType.BOOL:
        return values(1.0, 0.5, 0.5)
    if dtype in (DType.I8, DType.I16, DType.U16):
        return values(largest_of(dtype), 0.0, 1.0)
    return UNKNOWN


def largest_of(dtype: DType) -> float:
    """The largest magnitude of an element type; infinity for floats, and what is only stored."""
    if dtype is DType.BOOL:
        return 1.0
    if dtype.is_float or dtype.is_stored:
        return math.inf
    info = np.iinfo(dtype.numpy)
    return float(max(info.max, -int(info.min)))


def of_constant(value: Array) -> Values:
    """Of an array that is a constant of the graph."""
    if value.dtype.kind not in "fiub" or not value.size:
        return UNKNOWN
    wide = value.astype(np.float64)
    if value.ndim in (1, 3, 4) and value.size == value.shape[-3 if value.ndim > 1 else 0]:
        flat = wide.reshape(-1)  # one for each channel
        return Values(np.abs(flat), flat, np.zeros(flat.size))
    return Values(np.abs(wide).max()[None], np.array([wide.mean()]), np.array([wide.std()]))


def joined(parts: Sequence[Values]) -> Values:
    """Of a tensor whose elements come from several, channels not told apart."""
    found = [part.together() for part in parts]
    mean = found[0].mean
    return Values(
        np.max([each.most for each in found], axis=0),
        mean,
        np.max([each.deviation + abs(each.mean - mean) for each in found], axis=0),
    )


def evaluated(function: Callable[..., Array], operands: Sequence[Values]) -> Values:
    """An element-wise function at points of its operands' intervals, and of their distributions.

    Proven for functions that are largest in magnitude at an end of the interval or at 0, as
    sums, products and nearly all activations are; others bound their results themselves.

    Args:
        operands: all with as many channels.
    """
    bounded = [np.minimum(each.most, _HUGE) for each in operands]
    if len(operands) == 1:
        most = _at(function, [bounded[0][:, None] * _SHARES])
        points, weights = _POINTS[None, :], _WEIGHTS
        spread = [operands[0].mean[:, None] + operands[0].deviation[:, None] * points]
    elif len(operands) == 2:
        first, second = (part.reshape(-1) for part in np.meshgrid(_SHARES, _SHARES))
        most = _at(function, [bounded[0][:, None] * first, bounded[1][:, None] * second])
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
    made = np.nan_to_num(_at(function, spread), nan=0.0, posinf=_HUGE, neginf=-_HUGE)
    mean = (made * weights).sum(1)
    deviation = np.sqrt((((made - mean[:, None]) ** 2) * weights).sum(1))
    return Values(largest, mean, deviation)


def _at(function: Callable[..., Array], operands: Sequence[Array]) -> Array:
    with np.errstate(all="ignore"):
        found = function(*operands)
    return np.broadcast_to(np.asarray(found, np.float64), operands[0].shape)


def product(weights: Array, groups: int, bias: Values, x: Values) -> Values:
    """A convolution or dense layer: sums of products with constant weights.

    Args:
        weights: [M, C / groups, taps].
        bias: [M].
        x: of the input, [C].
    """
    wide = weights.astype(np.float64)
    filters = wide.shape[0]
    most, mean, variance = (
        np.repeat(each.reshape(groups, 1, -1), filters // groups, 1).reshape(filters, -1)
        for each in (x.most, x.mean, x.deviation**2)
    )
    magnitudes, sums = np.abs(wide).sum(2), wide.sum(2)
    squares = np.maximum((wide**2).sum(2), sums**2)
    with np.errstate(invalid="ignore"):  # 0 * infinity: a weight of zero takes nothing
        peak = np.where(magnitudes > 0, magnitudes * most, 0).sum(1) + bias.most
    deviation = np.sqrt((squares * variance).sum(1) + bias.deviation**2)
    partial = Values(peak, (magnitudes * np.abs(mean)).sum(1) + np.abs(bias.mean), deviation)
    return Values(peak, (sums * mean).sum(1) + bias.mean, deviation, (partial,))


def plus(a: Values, b: Values) -> Values:
    """A sum of two tensors; it is one of its own sums."""
    total = Values(a.most + b.most, a.mean + b.mean, np.sqrt(a.deviation**2 + b.deviation**2))
    return Values(total.most, total.mean, total.deviation, (*a.sums, total))
