"""How far two tensors are apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Errors:
    """The distance of a tensor from the expected one.

    Attributes:
        max_abs: largest absolute difference.
        max_rel: that, relative to the largest expected magnitude; for integers, the share of
            elements that differ.
        max_ulp: largest number of float32 values between two elements (0 for integers), of those
            of at least a thousandth of the largest magnitude.
        snr_db: power of the expected tensor over that of the difference, in decibels; infinite
            where they are equal.
    """

    max_abs: float
    max_rel: float
    max_ulp: int
    snr_db: float


# The least share of the largest magnitude at which units in the last place say something.
TELLING = 1e-3


def errors(actual: Array, expected: Array) -> Errors:
    """Compares two arrays of one shape; NaN equals NaN and an infinity equals itself."""
    if actual.shape != expected.shape:
        raise ValueError(f"shapes {actual.shape} and {expected.shape} differ")
    if not expected.size:
        return Errors(0.0, 0.0, 0, math.inf)
    if expected.dtype.kind not in "f":
        differ = actual != expected
        apart = float(np.abs(actual.astype(np.float64) - expected.astype(np.float64)).max())
        share = float(differ.mean())
        return Errors(apart, share, 0, math.inf if not share else -10 * math.log10(share))
    a, b = (x.astype(np.float64, copy=False) for x in (actual, expected))
    with np.errstate(all="ignore"):
        difference = a - b
    # Nothing is copied where all is finite, as it nearly always is.
    if not math.isfinite(_largest(difference)):
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        if not np.isfinite(a[~same]).all() or not np.isfinite(b[~same]).all():
            return Errors(math.inf, math.inf, 2**31, -math.inf)
        difference = np.where(same, 0.0, difference)
        b = np.where(np.isfinite(b), b, 0.0)
        actual = np.where(same, expected, actual)
    max_abs, peak = _largest(difference), _largest(b)
    noise, power = (float(np.vdot(x, x)) for x in (difference, b))
    snr = math.inf if not noise else 10 * math.log10(power / noise) if power else -math.inf
    relative = 0.0 if not max_abs else max_abs / peak if peak else math.inf
    # What is left of larger values that cancelled has units that are none of its own.
    telling = np.abs(b) >= peak * TELLING
    return Errors(max_abs, relative, _ulps(actual[telling], expected[telling]), snr)


def relative_error(actual: Array, expected: Array) -> float:
    """`Errors.max_rel` alone."""
    if expected.dtype.kind == "f" and expected.size:
        with np.errstate(all="ignore"):
            apart = _largest(np.subtract(actual, expected, dtype=np.float64))
        peak = _largest(expected)
        if math.isfinite(apart) and math.isfinite(peak):
            return 0.0 if not apart else apart / peak if peak else math.inf
    return errors(actual, expected).max_rel


def _largest(x: Array) -> float:
    """The largest magnitude; NaN where there is one."""
    return max(float(x.max()), -float(x.min()))


def _ulps(actual: Array, expected: Array) -> int:
    """The largest number of float32 values between two elements."""
    with np.errstate(over="ignore"):
        a, b = (_ordinals(x.astype(np.float32)) for x in (actual, expected))
    return int((np.maximum(a, b) - np.minimum(a, b)).view(np.uint32).max())


def _ordinals(values: Array) -> Array:
    """The position of each float32 in the order of all (int32); +0 and -0 share one."""
    bits = values.view(np.int32)
    sign = bits >> 31
    return ((bits & 0x7FFFFFFF) ^ sign) - sign
