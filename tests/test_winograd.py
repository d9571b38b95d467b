"""Winograd's transforms: exact in rational arithmetic, and how much short precisions lose."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from mdlc.codegen.tiles.winograd_transform import LARGEST, transform
from mdlc.compiler.types import DType

SHAPES = [
    (outputs, taps)
    for taps in (2, 3, 4, 5)
    for outputs in range(1, LARGEST)
    if 3 <= outputs + taps - 1 <= LARGEST
]


@pytest.mark.parametrize("dtype", [DType.F32, DType.F16])
@pytest.mark.parametrize(("outputs", "taps"), SHAPES)
def test_one_dimension_is_exact(outputs: int, taps: int, dtype: DType) -> None:
    """A' [(G g) * (B' d)] is the correlation of d and g, without rounding."""
    t = transform(outputs, taps, dtype)
    generator = np.random.default_rng(outputs)
    g = [Fraction(int(v)) for v in generator.integers(-9, 10, taps)]
    d = [Fraction(int(v)) for v in generator.integers(-9, 10, t.size)]

    def times(matrix: tuple[tuple[Fraction, ...], ...], x: list[Fraction]) -> list[Fraction]:
        return [sum((a * b for a, b in zip(row, x, strict=True)), Fraction(0)) for row in matrix]

    products = [a * b for a, b in zip(times(t.filter, g), times(t.input, d), strict=True)]
    wanted = [sum(d[i + k] * g[k] for k in range(taps)) for i in range(outputs)]
    assert times(t.output, products) == wanted


@pytest.mark.parametrize(("outputs", "taps"), [(2, 3), (4, 3), (6, 3)])
def test_the_published_matrices(outputs: int, taps: int) -> None:
    """Lavin and Gray's F(2, 3) and F(4, 3), up to the signs of points' rows."""
    first = {2: "-1 0 1 0", 4: "4 0 -5 0 1 0", 6: "-1 0 21/4 0 -21/4 0 1 0"}[outputs]
    t = transform(outputs, taps)
    assert t.input[0] == tuple(map(Fraction, first.split()))
    assert t.output[0] == (*[1] * (t.size - 1), 0)


@pytest.mark.parametrize("dtype", [DType.F32, DType.F16])
@pytest.mark.parametrize(("outputs", "taps"), SHAPES)
def test_error(outputs: int, taps: int, dtype: DType) -> None:
    """Against double precision, on 64 channels: within what the class says of itself."""
    t = transform(outputs, taps, dtype)
    element = dtype.numpy
    generator = np.random.default_rng(0)
    channels, filters = 64, 16
    d = generator.uniform(-1, 1, (channels, t.size, t.size)).astype(element)
    w = generator.uniform(-1, 1, (filters, channels, taps, taps)).astype(element)
    b, a = (np.array(m, element) for m in (t.input, t.output))
    u = t.filters(w).astype(element)
    v = np.einsum("ia,cab,jb->ijc", b, d, b).astype(element)
    m = np.einsum("ijmc,ijc->ijm", u, v).astype(element)
    actual = np.einsum("pi,ijm,qj->mpq", a, m, a)
    windows = np.lib.stride_tricks.sliding_window_view(d.astype(np.float64), (taps, taps), (1, 2))
    wanted = np.einsum("cpqij,mcij->mpq", windows, w.astype(np.float64))
    assert np.abs(actual - wanted).max() <= t.error * np.abs(wanted).max()
