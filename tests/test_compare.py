"""The distances that verify reports, on values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mdlc.checks.compare import errors


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_equal_tensors() -> None:
    found = errors(f32(1, -2, math.nan, math.inf), f32(1, -2, math.nan, math.inf))
    assert (found.max_abs, found.max_rel, found.max_ulp, found.snr_db) == (0, 0, 0, math.inf)


def test_differences() -> None:
    found = errors(f32(1, 2, 3, 4.5), f32(1, 2, 3, 4))
    assert found.max_abs == 0.5
    assert found.max_rel == 0.125
    assert found.snr_db == pytest.approx(10 * math.log10(30 / 0.25))


def test_units_in_the_last_place() -> None:
    one = np.float32(1)
    assert errors(np.array([np.nextafter(one, 2)]), f32(1)).max_ulp == 1
    assert errors(np.array([np.nextafter(one, 0)]), f32(1)).max_ulp == 1
    smallest = np.nextafter(np.float32(0), one)
    assert errors(np.array([smallest]), np.array([-smallest])).max_ulp == 2
    assert errors(f32(0.0), f32(-0.0)).max_ulp == 0


@pytest.mark.parametrize(
    ("actual", "expected"),
    [(math.nan, 1.0), (1.0, math.nan), (math.inf, 1.0), (1.0, math.inf), (math.inf, -math.inf)],
)
def test_not_finite_is_off(actual: float, expected: float) -> None:
    found = errors(f32(actual, 1), f32(expected, 1))
    assert found.max_rel == math.inf


def test_something_for_nothing() -> None:
    assert errors(f32(1e-9, 0), f32(0, 0)).max_rel == math.inf


def test_integers_are_counted() -> None:
    expected = np.arange(2000)
    actual = expected.copy()
    actual[7] += 3
    found = errors(actual, expected)
    assert (found.max_abs, found.max_rel) == (3, 1 / 2000)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="differ"):
        errors(f32(1, 2), f32(1))
