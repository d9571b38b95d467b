"""Winograd's minimal filtering F(m, 3): transforms as matrices, and as straight-line code.

y = A' [(G g G') * (B' d B)] A for a 3x3 filter g and a tile d of (m + 2) x (m + 2) pixels gives
m x m outputs with (m + 2)^2 products instead of 9 m^2. Source: Lavin and Gray, "Fast Algorithms
for Convolutional Neural Networks", arXiv 1509.09308, sections 3 and 4; the interpolation points
are 0, 1, -1, 2, -2, 1/2, -1/2 and infinity, the first m + 2 of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from mdlc.codegen.formula import literal
from mdlc.codegen.isa import Isa
from mdlc.compiler.types import Array

Matrix = tuple[tuple[Fraction, ...], ...]


def _matrix(*rows: str) -> Matrix:
    return tuple(tuple(Fraction(word) for word in row.split()) for row in rows)


@dataclass(frozen=True)
class Transform:
    """The three matrices of F(outputs, 3)."""

    outputs: int
    input: Matrix
    filter: Matrix
    output: Matrix

    @property
    def size(self) -> int:
        """Pixels of a tile along one side."""
        return self.outputs + 2

    def filters(self, weights: Array) -> Array:
        """G g G' for weights [M, C, 3, 3], in double precision: [size, size, M, C]."""
        g = np.array(self.filter, np.float64)
        wide = weights.astype(np.float64)
        return np.asarray(np.einsum("ia,mcab,jb->ijmc", g, wide, g, optimize=True))


TRANSFORMS = {
    2: Transform(
        2,
        _matrix("1 0 -1 0", "0 1 1 0", "0 -1 1 0", "0 -1 0 1"),
        _matrix("1 0 0", "1/2 1/2 1/2", "1/2 -1/2 1/2", "0 0 1"),
        _matrix("1 1 1 0", "0 1 -1 1"),
    ),
    4: Transform(
        4,
        _matrix(
            "4 0 -5 0 1 0",
            "0 -4 -4 1 1 0",
            "0 4 -4 -1 1 0",
            "0 -2 -1 2 1 0",
            "0 2 -1 -2 1 0",
            "0 4 0 -5 0 1",
        ),
        _matrix(
            "1/4 0 0",
            "-1/6 -1/6 -1/6",
            "-1/6 1/6 -1/6",
            "1/24 1/12 1/6",
            "1/24 -1/12 1/6",
            "0 0 1",
        ),
        _matrix("1 1 1 1 1 0", "0 1 -1 2 -2 0", "0 1 1 4 4 0", "0 1 -1 8 -8 1"),
    ),
    6: Transform(
        6,
        _matrix(
            "1 0 -21/4 0 21/4 0 -1 0",
            "0 1 1 -17/4 -17/4 1 1 0",
            "0 -1 1 17/4 -17/4 -1 1 0",
            "0 1/2 1/4 -5/2 -5/4 2 1 0",
            "0 -1/2 1/4 5/2 -5/4 -2 1 0",
            "0 2 4 -5/2 -5 1/2 1 0",
            "0 -2 4 5/2 -5 -1/2 1 0",
            "0 -1 0 21/4 0 -21/4 0 1",
        ),
        _matrix(
            "1 0 0",
            "-2/9 -2/9 -2/9",
            "-2/9 2/9 -2/9",
            "1/90 1/45 2/45",
            "1/90 -1/45 2/45",
            "32/45 16/45 8/45",
            "32/45 -16/45 8/45",
            "0 0 1",
        ),
        _matrix(
            "1 1 1 1 1 1 1 0",
            "0 1 -1 2 -2 1/2 -1/2 0",
            "0 1 1 4 4 1/4 1/4 0",
            "0 1 -1 8 -8 1/8 -1/8 0",
            "0 1 1 16 16 1/16 1/16 0",
            "0 1 -1 32 -32 1/32 -1/32 1",
        ),
    ),
}


class Lines:
    """Straight-line code on vectors; every value gets a name of its own."""

    def __init__(self, isa: Isa) -> None:
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
        """The name of a linear combination; "" if all coefficients are zero."""
        terms = [(c, x) for c, x in zip(coefficients, operands, strict=True) if c]
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

    def inputs(self, matrix: Matrix, d: Sequence[str]) -> list[str]:
        """B' d along one axis. Rows between the first and the last come in pairs whose even
        columns agree and whose odd ones differ in sign: half of the sums serve twice."""
        zero = Fraction(0)
        results = [self.sum(matrix[0], d)]
        for plus in matrix[1:-1:2]:
            even = self.sum([c if i % 2 == 0 else zero for i, c in enumerate(plus)], d)
            odd = self.sum([c if i % 2 else zero for i, c in enumerate(plus)], d)
            results.append(self.value(self.isa.op("add", even, odd)))
            results.append(self.value(self.isa.op("sub", even, odd)))
        results.append(self.sum(matrix[-1], d))
        return results

    def outputs(self, matrix: Matrix, m: Sequence[str]) -> list[str]:
        """A' m along one axis: rows read sums and differences of the pairs by turns."""
        pairs = [(m[i], m[i + 1]) for i in range(1, len(m) - 1, 2)]
        sums = [self.value(self.isa.op("add", *pair)) for pair in pairs]
        differences = []
        if len(matrix) > 1:
            differences = [self.value(self.isa.op("sub", *pair)) for pair in pairs]
        results = []
        for row, factors in enumerate(matrix):
            middle = sums if row % 2 == 0 else differences
            coefficients = [factors[0], *factors[1:-1:2], factors[-1]]
            results.append(self.sum(coefficients, [m[0], *middle, m[-1]]))
        return results
