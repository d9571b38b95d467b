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
        max_ulp: largest number of float32 values between two elements (0 for integers).
        snr_db: power of the expected tensor over that of the difference, in decibels; infinite
            where they are equal.
    """

    max_abs: float
    max_rel: float
    max_ulp: int
    snr_db: float


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
    a, b = actual.astype(np.float64), expected.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if not np.isfinite(a[~same]).all() or not np.isfinite(b[~same]).all():
        return Errors(math.inf, math.inf, 2**31, -math.inf)
    difference = np.where(same, 0.0, np.subtract(a, b, where=~same, out=np.zeros_like(a)))
    finite = np.where(np.isfinite(b), b, 0.0)
    max_abs = float(np.abs(difference).max())
    peak = float(np.abs(finite).max())
    noise, power = float((difference**2).sum()), float((finite**2).sum())
    snr = math.inf if not noise else 10 * math.log10(power / noise) if power else -math.inf
    relative = 0.0 if not max_abs else max_abs / peak if peak else math.inf
    return Errors(max_abs, relative, _ulps(actual, expected, same), snr)


def _ulps(actual: Array, expected: Array, same: Array) -> int:
    a, b = (_ordinals(x.astype(np.float32)) for x in (actual, expected))
    return int(np.where(same, 0, np.abs(a - b)).max())


def _ordinals(values: Array) -> Array:
    """The position of each float32 in the order of all; +0 and -0 share one."""
    bits = values.view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)
