"""Winograd's transforms: exact in rational arithmetic, and how much single precision loses."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from mdlc.codegen.winograd import TRANSFORMS


@pytest.mark.parametrize("outputs", TRANSFORMS)
def test_one_dimension_is_exact(outputs: int) -> None:
    """A' [(G g) * (B' d)] is the correlation of d and g, without rounding."""
    t = TRANSFORMS[outputs]
    generator = np.random.default_rng(outputs)
    g = [Fraction(int(v)) for v in generator.integers(-9, 10, 3)]
    d = [Fraction(int(v)) for v in generator.integers(-9, 10, t.size)]

    def times(matrix: tuple[tuple[Fraction, ...], ...], x: list[Fraction]) -> list[Fraction]:
        return [sum((a * b for a, b in zip(row, x, strict=True)), Fraction(0)) for row in matrix]

    products = [a * b for a, b in zip(times(t.filter, g), times(t.input, d), strict=True)]
    wanted = [sum(d[i + k] * g[k] for k in range(3)) for i in range(outputs)]
    assert times(t.output, products) == wanted


# Largest error of one 3x3 convolution over 64 channels of values in -1..1, in units of the
# largest output: what the choice of F(m, 3) may cost.
BOUNDS = {2: 2e-6, 4: 1e-5, 6: 1e-4}


@pytest.mark.parametrize("outputs", TRANSFORMS)
def test_error_in_single_precision(outputs: int) -> None:
    t = TRANSFORMS[outputs]
    generator = np.random.default_rng(0)
    channels, filters = 64, 16
    d = generator.uniform(-1, 1, (channels, t.size, t.size)).astype(np.float32)
    w = generator.uniform(-1, 1, (filters, channels, 3, 3)).astype(np.float32)
    b, a = (np.array(m, np.float32) for m in (t.input, t.output))
    u = t.filters(w).astype(np.float32)
    v = np.einsum("ia,cab,jb->ijc", b, d, b).astype(np.float32)
    m = np.einsum("ijmc,ijc->ijm", u, v).astype(np.float32)
    actual = np.einsum("pi,ijm,qj->mpq", a, m, a)
    windows = np.lib.stride_tricks.sliding_window_view(d.astype(np.float64), (3, 3), (1, 2))
    wanted = np.einsum("cpqij,mcij->mpq", windows, w.astype(np.float64))
    assert np.abs(actual - wanted).max() <= BOUNDS[outputs] * np.abs(wanted).max()
