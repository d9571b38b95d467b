"""Which range of real values 8 bits are spent on: min-max, percentile, entropy, mean square."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.types import Array
from mdlc.quantization.statistics import Histogram

Range = tuple[float, float]

# Steps between the smallest and the largest integer of 8 bits.
STEPS = 255
# Share of the elements that the percentile method leaves outside.
OUTSIDE = 1e-4
# Ranges tried by the methods that search, from the whole one down to a tenth of it.
CANDIDATES = 96
NARROWEST = 0.1


def choose_range(histogram: Histogram, method: str = "minmax") -> Range:
    """The range (low, high), low <= 0 <= high, in which values are to be distinguished.

    Args:
        method: a key of METHODS.

    Raises:
        MdlcError: there is no such method.
    """
    if method not in METHODS:
        raise MdlcError(
            f"there is no calibration method {method!r}",
            node="--calibration",
            hint=f"choose one of {', '.join(METHODS)}",
        )
    low, high = METHODS[method](histogram)
    return min(low, 0.0), max(high, 0.0)


def clipped_share(histogram: Histogram, range_: Range) -> float:
    """The share of the elements that lie outside a range, to the precision of a bin."""
    middles, counts = histogram.centres()
    outside = (middles < range_[0]) | (middles > range_[1])
    return float(counts[outside].sum() / max(histogram.total, 1))


def expected_noise(histogram: Histogram, range_: Range, steps: int = STEPS) -> float:
    """Mean square error of an element when it is rounded to the steps of a range.

    Elements are taken to lie in the middle of their bins; zeros have no error.
    """
    middles, counts = histogram.centres()
    return _noise(middles, counts, range_, steps) / max(histogram.total, 1)


def _noise(middles: Array, counts: Array, range_: Range, steps: int) -> float:
    low, high = range_
    step = (high - low) / steps
    if step <= 0:
        return float((counts * middles**2).sum())
    nearest = np.clip(np.rint(middles / step), np.rint(low / step), np.rint(high / step)) * step
    return float((counts * (middles - nearest) ** 2).sum())


def _whole(histogram: Histogram) -> Range:
    """From the smallest to the largest value."""
    if not histogram.total:
        return 0.0, 0.0
    return min(histogram.low, 0.0), max(histogram.high, 0.0)


def _percentile(histogram: Histogram) -> Range:
    """All but the outermost elements, OUTSIDE of them divided among the two sides."""
    middles, counts = histogram.centres()
    low, high = _whole(histogram)
    if not middles.size:
        return low, high
    # A side that has no values of its own needs no share of what may be lost.
    allowed = OUTSIDE * histogram.total / ((low < 0) + (high > 0))
    half = histogram.width / 2
    from_below, from_above = np.cumsum(counts), np.cumsum(counts[::-1])
    first = int(np.searchsorted(from_below, allowed, "right"))
    last = len(counts) - 1 - int(np.searchsorted(from_above, allowed, "right"))
    return (
        max(low, float(middles[min(first, len(counts) - 1)]) - half),
        min(high, float(middles[max(last, 0)]) + half),
    )


def _mse(histogram: Histogram) -> Range:
    """The range with the least mean square error: both ends together, then each by itself."""
    middles, counts = histogram.centres()
    whole = _whole(histogram)
    if not middles.size:
        return whole
    best = min(_shrunk(whole), key=lambda r: _noise(middles, counts, r, STEPS))
    for _ in range(2):
        low, high = best
        lows = [(low * f, high) for f in np.linspace(0.5, 1.2, 29)] if low < 0 else []
        highs = [(low, high * f) for f in np.linspace(0.5, 1.2, 29)] if high > 0 else []
        inside = [(max(a, whole[0]), min(b, whole[1])) for a, b in (*lows, *highs)]
        best = min([best, *inside], key=lambda r: _noise(middles, counts, r, STEPS))
    return best


def _entropy(histogram: Histogram) -> Range:
    """The range whose quantised distribution tells least apart from the clipped one.

    Kullback-Leibler divergence between the distribution of the values, those outside counted at
    the ends, and the same rounded to the steps of the range. Source: S. Migacz, "8-bit Inference
    with TensorRT", GTC 2017; here for both signs at once, and with an even spread of candidates.
    """
    whole = _whole(histogram)
    if not histogram.width:
        return whole
    best, least = whole, math.inf
    for range_ in _shrunk(whole):
        found = _divergence(histogram, range_)
        if found < least:
            best, least = range_, found
    return best


def _divergence(histogram: Histogram, range_: Range) -> float:
    middles, counts = histogram.centres()
    low, high = range_
    inside = (middles >= low) & (middles <= high)
    own = counts[inside].astype(np.float64)
    if not own.any():
        return math.inf
    clipped = own.copy()
    clipped[0] += counts[middles < low].sum()
    clipped[-1] += counts[middles > high].sum()
    level = np.rint((middles[inside] - low) / (high - low) * STEPS).astype(np.int64)
    used = own > 0
    mass = np.bincount(level, own, STEPS + 1)
    share = np.bincount(level, used.astype(np.float64), STEPS + 1)
    spread = np.where(used, mass[level] / np.maximum(share[level], 1), 0.0)
    p, q = clipped / clipped.sum(), spread / spread.sum()
    # An end that only clipped values reach has no mass in q; a little keeps the sum finite.
    smooth = 1e-9
    return float((p * np.log(np.maximum(p, smooth) / np.maximum(q, smooth)))[p > 0].sum())


def _shrunk(whole: Range) -> Iterator[Range]:
    """A range and narrower ones, the whole one first."""
    for factor in np.linspace(1.0, NARROWEST, CANDIDATES):
        yield whole[0] * float(factor), whole[1] * float(factor)


METHODS: dict[str, Callable[[Histogram], Range]] = {
    "minmax": _whole,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _mse,
}
