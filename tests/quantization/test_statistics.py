"""Histograms and the choice of ranges, against numpy on all values at once."""

import numpy as np
import pytest

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.types import Array
from mdlc.quantization.ranges import METHODS, choose_range, clipped_share, expected_noise
from mdlc.quantization.statistics import BINS, Histogram, Statistics

RNG = np.random.default_rng(3)
NORMAL = RNG.standard_normal(60_000).astype(np.float32)


def histogram(*parts: Array) -> Histogram:
    made = Histogram()
    for part in parts:
        made.add(part)
    return made


def rounded(values: Array, low: float, high: float) -> Array:
    step = (high - low) / 255
    return np.clip(np.rint(values / step), np.rint(low / step), np.rint(high / step)) * step


def test_counts_do_not_depend_on_how_values_come() -> None:
    whole = histogram(NORMAL * 50)
    parts = histogram(*np.array_split(NORMAL * 50, 37))
    growing = histogram(*np.array_split(np.sort(np.abs(NORMAL)) * 50, 37))
    assert whole.width == parts.width
    np.testing.assert_array_equal(whole.counts, parts.counts)
    assert (whole.low, whole.high, whole.total) == (parts.low, parts.high, parts.total)
    np.testing.assert_array_equal(
        growing.counts, histogram(np.abs(NORMAL) * 50).counts
    )  # widths doubled many times on the way


def test_bins_hold_what_lies_between_their_borders() -> None:
    made = histogram(NORMAL)
    edges = (np.arange(2 * BINS + 1) - BINS) * made.width
    wanted, _ = np.histogram(NORMAL[NORMAL != 0], edges)
    # numpy's last bin of all is closed, which no value reaches.
    np.testing.assert_array_equal(made.counts, wanted)


def test_memory_does_not_grow() -> None:
    made = Histogram()
    for scale in 10.0 ** np.arange(-20, 20):
        made.add(np.float32(scale) * NORMAL[:100])
    assert made.counts.size == 2 * BINS
    assert made.total == 40 * 100
    assert made.high < BINS * made.width


def test_zeros_are_counted_apart() -> None:
    made = histogram(np.maximum(NORMAL, 0))
    assert made.zeros == int((NORMAL <= 0).sum())
    assert made.total == NORMAL.size
    low, high, counts = made.coarse(10)
    assert (low, sum(counts)) == (0.0, NORMAL.size)
    assert high == NORMAL.max()
    assert counts[0] >= made.zeros


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(bad: float) -> None:
    with pytest.raises(MdlcError, match=r"tensor 'x'.*NaN or infinity"):
        Statistics().add(np.array([1.0, bad], np.float32), "x")


def test_minmax_is_the_whole_range_and_zero() -> None:
    assert choose_range(histogram(NORMAL)) == (NORMAL.min(), NORMAL.max())
    assert choose_range(histogram(NORMAL**2 + 1)) == (0.0, float((NORMAL**2 + 1).max()))
    assert choose_range(histogram(-(NORMAL**2) - 1)) == (float((-(NORMAL**2) - 1).min()), 0.0)
    assert choose_range(histogram(np.zeros(5, np.float32))) == (0.0, 0.0)


def test_percentile_leaves_a_ten_thousandth_outside() -> None:
    low, high = choose_range(made := histogram(NORMAL), "percentile")
    outside = 1 - ((low <= NORMAL) & (high >= NORMAL)).mean()
    assert 0.2e-4 < outside <= 1e-4
    assert clipped_share(made, (low, high)) == pytest.approx(outside, abs=1e-4)
    one_sided = np.abs(NORMAL)
    low, high = choose_range(histogram(one_sided), "percentile")
    assert low == 0
    assert 0.5e-4 < (one_sided > high).mean() <= 1e-4


@pytest.mark.parametrize("values", [NORMAL, np.maximum(NORMAL, 0), NORMAL**3], ids="nrc")
def test_mse_finds_the_best_symmetric_scaling(values: Array) -> None:
    made = histogram(values)
    found = choose_range(made, "mse")
    error = float(((rounded(values, *found) - values) ** 2).mean())
    tried = [
        float(((rounded(values, made.low * f, made.high * f) - values) ** 2).mean())
        for f in np.linspace(0.1, 1, 60)
    ]
    assert error <= min(tried) * 1.02
    assert expected_noise(made, found) == pytest.approx(error, rel=0.05)


def test_entropy_cuts_a_long_tail_and_keeps_an_even_range() -> None:
    tail = np.concatenate([NORMAL, np.float32([60.0, -55.0])])
    low, high = choose_range(histogram(tail), "entropy")
    assert -12 < low < -2
    assert 2 < high < 12
    even = RNG.uniform(-1, 1, 50_000).astype(np.float32)
    low, high = choose_range(histogram(even), "entropy")
    assert low < -0.95
    assert high > 0.95


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "values",
    [np.zeros(3), np.float32([1e-38]), np.float32([3e38, -3e38]), np.float32([-2.0] * 9), NORMAL],
    ids=["zero", "tiny", "huge", "constant", "normal"],
)
def test_ranges_hold_zero_and_stay_within_what_was_seen(method: str, values: Array) -> None:
    low, high = choose_range(histogram(values), method)
    assert min(values.min(), 0) <= low <= 0 <= high <= max(values.max(), 0)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(MdlcError, match=r"no calibration method 'median'.*minmax, percentile"):
        choose_range(histogram(NORMAL), "median")
