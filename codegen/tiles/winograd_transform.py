"""Winograd's minimal filtering F(m, r): transforms as matrices, and as straight-line code.

y = A' [(G g G') * (B' d B)] A for an r x r filter g and a tile d of (m + r - 1)^2 pixels gives
m x m outputs with (m + r - 1)^2 products instead of r^2 m^2. Source: Lavin and Gray, "Fast
Algorithms for Convolutional Neural Networks", arXiv 1509.09308, sections 3 and 4, with matrices
for any m and r from Toom and Cook's interpolation (Blahut, "Fast Algorithms for Signal
Processing", 2010, section 5.4) at 0, 1, -1, 2, -2, 1/2, -1/2 and infinity.

Half precision has points of its own for tiles of 5 and 6 pixels: what a transform loses depends on
them (Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep
Neural Networks", 2020), and these lose a third of what 1 and 2 do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np

from mdlc.codegen.isa.dialect import Dialect
from mdlc.codegen.tiles.formula import literal
from mdlc.compiler.types import Array, DType

Matrix = tuple[tuple[Fraction, ...], ...]

# In this order: small numbers and their inverses lose least.
POINTS = tuple(map(Fraction, ("0", "1", "-1", "2", "-2", "1/2", "-1/2")))
LARGEST = len(POINTS) + 1
# In half precision, by the pixels of a tile: the best of short fractions by simulation.
HALF_POINTS = {
    5: tuple(map(Fraction, ("0", "3/4", "-3/4", "2"))),
    6: tuple(map(Fraction, ("0", "5/8", "-5/8", "3/2", "-3/2"))),
}


@dataclass(frozen=True)
class Transform:
    """The three matrices of F(outputs, taps), in one dimension.

    Attributes:
        outputs: outputs of a tile; taps: of the filter.
        points: where the polynomials are evaluated; infinity follows them.
        dtype: of the values that it is for.
        input: [size, size]; filter: [size, taps]; output: [outputs, size].
    """

    outputs: int
    taps: int
    points: tuple[Fraction, ...]
    input: Matrix
    filter: Matrix
    output: Matrix
    dtype: DType = DType.F32

    @property
    def size(self) -> int:
        """Pixels of a tile along one side, and products."""
        return self.outputs + self.taps - 1

    @property
    def error(self) -> float:
        """What one convolution loses at most, of its largest output.

        As measured by tests/test_winograd.py on 64 channels of values in -1..1.
        """
        if self.dtype is DType.F16:
            few = 1e-2 if self.taps > 2 else 3e-2  # to extrapolate far from few taps costs most
            return {3: 6e-3, 4: 6e-3, 5: 1e-2, 6: few, 7: 1e-1, 8: 1e-1}[self.size]
        return {3: 2e-6, 4: 2e-6, 5: 1e-5, 6: 2e-5, 7: 2e-5, 8: 5e-5}[self.size]

    @property
    def growth(self) -> float:
        """How much larger than inputs and sums of magnitudes its values inside may be."""
        inputs = [sum(map(abs, row)) for row in self.input]
        both = [s * sum(map(abs, row)) for s, row in zip(inputs, self.filter, strict=True)]
        return float(max(max(inputs) ** 2, (max(both) / self.taps) ** 2))

    @property
    def factors(self) -> tuple[Matrix, tuple[Fraction, ...]]:
        """The filter matrix as powers of the points, and what each row is multiplied by."""
        powers, scales = [], []
        for row, point in zip(self.filter, (*self.points, None), strict=True):
            finite = point is not None
            scales.append(row[0] if finite else row[-1])
            powers.append(tuple(value / scales[-1] for value in row))
        return tuple(powers), tuple(scales)

    def filters(self, weights: Array) -> Array:
        """G g G' for weights [M, C, taps, taps], in double precision: [size, size, M, C].

        Powers of the points are short binary fractions, so that sums are exact and the only
        rounding is that of the factor: whatever adds in another order finds the same bits.
        """
        powers, scales = self.factors
        g, factor = np.array(powers, np.float64), np.array(scales, np.float64)
        wide = weights.astype(np.float64)
        # As plain products: the filters are long and the transforms are small.
        taps = wide.reshape(-1, self.taps, self.taps)
        down = np.tensordot(g, taps, ([1], [1]))  # [size, M C, taps]
        both = np.tensordot(g, down, ([1], [2]))  # [size across, size down, M C]
        both = both.transpose(1, 0, 2) * np.outer(factor, factor)[:, :, None]
        return both.reshape(self.size, self.size, *weights.shape[:2])


def _product(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients of the polynomial with these roots, the constant first."""
    found = [Fraction(1)]
    for root in roots:
        found = [
            a - root * b for a, b in zip([Fraction(0), *found], [*found, Fraction(0)], strict=True)
        ]
    return found


@cache
def transform(outputs: int, taps: int, dtype: DType = DType.F32) -> Transform:
    """F(outputs, taps) by Toom and Cook's interpolation: outputs + taps - 1 at most LARGEST."""
    size = outputs + taps - 1
    points = POINTS[: size - 1]
    if dtype is DType.F16:
        points = HALF_POINTS.get(size, points)
    zero, one = Fraction(0), Fraction(1)
    rows, filters = [], []
    for point in points:
        others = [other for other in points if other != point]
        rows.append((*_product(others), zero))
        scale = math.prod((point - other for other in others), start=one)
        filters.append(tuple(point**k / scale for k in range(taps)))
    rows.append(tuple(_product(points)))
    filters.append((*[zero] * (taps - 1), one))
    output = tuple(
        (*(point**row for point in points), one if row == outputs - 1 else zero)
        for row in range(outputs)
    )
    return Transform(outputs, taps, points, tuple(rows), tuple(filters), output, dtype)


class Lines:
    """Straight-line code on vectors; every value gets a name of its own."""

    def __init__(self, isa: Dialect) -> None:
        self.isa = isa
        self.text: list[str] = []
        self._count = 0

    def value(self, expression: str) -> str:
        """Names an expression."""
        name = f"t{self._count}"
        self._count += 1
        self.text.append(f"const {self.isa.vector} {name} = {expression};")
        return name

    def sum(self, coefficients: Sequence[Fraction], operands: Sequence[str]) -> str:
        """The name of a linear combination of the first operands; "" if it is zero."""
        terms = [(c, x) for c, x in zip(coefficients, operands, strict=False) if c]
        if not terms:
            return ""
        # Start from a term with factor 1, which costs no multiplication.
        terms.sort(key=lambda term: term[0] != 1)
        first, name = terms[0]
        total = name
        if first == -1 and len(terms) > 1 and terms[1][0] > 0:
            terms[0], terms[1] = terms[1], terms[0]
            first, total = terms[0]
        if first != 1:
            constant = self.isa.set1(literal(float(first)))
            total = self.value(self.isa.op("mul", total, constant))
        for factor, x in terms[1:]:
            if factor == 1:
                total = self.value(self.isa.op("add", total, x))
            elif factor == -1:
                total = self.value(self.isa.op("sub", total, x))
            else:
                constant = self.isa.set1(literal(float(factor)))
                total = self.value(self.isa.fma(x, constant, total))
        return total

    def inputs(self, of: Transform, d: Sequence[str]) -> list[str]:
        """B' d along one axis; without the last element of d, that at infinity is left out.

        Points come in pairs a, -a but for 0 and at most one more, b. The factor (x - b) of the
        other points' polynomials is applied first; what is left is even but for a factor x, so
        that the even and the odd elements' sums serve both points of a pair.
        """
        pairs = [a for a in of.points if a > 0 and -a in of.points]
        single = [b for b in of.points if b and -b not in of.points]
        squares = [a * a for a in pairs]
        e = list(d)
        if single:
            e = [self._less(d[k + 1], single[0], d[k]) for k in range(len(d) - 1)]
        values = {Fraction(0): self.sum(_product(squares), e[0::2])}
        for a in pairs:
            others = _product([square for square in squares if square != a * a])
            even, odd = self.sum(others, e[2::2]), self.sum(others, e[1::2])
            values[a] = self._less(even, -a, odd)
            values[-a] = self._less(even, a, odd)
        if single:
            values[single[0]] = self.sum(_product(squares), d[1::2])
        finite = [values[point] for point in of.points]
        return [*finite, self.sum(_product(squares), e[1::2])] if len(d) == of.size else finite

    def _less(self, x: str, factor: Fraction, y: str) -> str:
        """x - factor * y."""
        return self.sum([Fraction(1), -factor], [x, y])

    def outputs(self, of: Transform, rows: int, m: Sequence[str]) -> list[str]:
        """The first rows of A' m along one axis: sums and differences of pairs by turns."""
        at = dict(zip(of.points, m, strict=False))
        pairs = [a for a in of.points if a > 0 and -a in of.points]
        single = [b for b in of.points if b and -b not in of.points]
        sums = [self.value(self.isa.op("add", at[a], at[-a])) for a in pairs]
        differences = []
        if rows > 1:
            differences = [self.value(self.isa.op("sub", at[a], at[-a])) for a in pairs]
        results = []
        for row in range(rows):
            terms = list(
                zip([a**row for a in pairs], differences if row % 2 else sums, strict=True)
            )
            terms += [(b**row, at[b]) for b in single]
            terms += [(Fraction(1), m[0])] if row == 0 else []
            terms += [(Fraction(1), m[-1])] if row == of.outputs - 1 else []
            results.append(self.sum([c for c, _ in terms], [x for _, x in terms]))
        return results
