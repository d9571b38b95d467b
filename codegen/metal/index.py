"""Integer expressions of kernels, folded as they are built: no division by one, no dead term."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Index:
    """An unsigned expression and the number of values that it can have (0 .. count - 1)."""

    text: str
    count: int

    @staticmethod
    def of(value: int) -> Index:
        """A number."""
        return Index(str(value), value + 1)

    @property
    def fixed(self) -> int | None:
        """The value, where it is known."""
        if self.count == 1:
            return 0
        return int(self.text) if self.text.isdigit() else None

    def __add__(self, other: Index | int) -> Index:
        other = Index.of(other) if isinstance(other, int) else other
        if self.fixed is not None and other.fixed is not None:
            return Index.of(self.fixed + other.fixed)
        if other.fixed == 0:
            return self
        if self.fixed == 0:
            return other
        return Index(f"{self.text} + {other.text}", self.count + other.count - 1)

    def __sub__(self, other: int) -> Index:
        if other == 0:
            return self
        if self.fixed is not None:
            return Index.of(self.fixed - other)
        return Index(f"{self.text} - {other}", max(self.count - other, 1))

    def __mul__(self, factor: int) -> Index:
        if self.fixed is not None:
            return Index.of(self.fixed * factor)
        if factor == 1:
            return self
        return Index(f"{_factor(self.text)} * {factor}", (self.count - 1) * factor + 1)

    def __floordiv__(self, by: int) -> Index:
        if self.fixed is not None:
            return Index.of(self.fixed // by)
        if by == 1:
            return self
        if self.count <= by:
            return Index.of(0)
        return Index(f"{_factor(self.text)} / {by}", (self.count - 1) // by + 1)

    def __mod__(self, by: int) -> Index:
        if self.fixed is not None:
            return Index.of(self.fixed % by)
        if by == 1:
            return Index.of(0)
        if self.count <= by:
            return self
        return Index(f"{_factor(self.text)} % {by}", by)

    def __str__(self) -> str:
        return "0" if self.count == 1 else self.text

    @property
    def factor(self) -> str:
        """The text as an operand of any operator."""
        return _factor(str(self))


def _factor(text: str) -> str:
    return text if re.fullmatch(r"[\w.]+(\[\w+\])?", text) else f"({text})"


def flat(indices: Sequence[Index], shape: Sequence[int]) -> Index:
    """The position of an element in row-major order."""
    total = Index.of(0)
    for index, length in zip(indices, shape, strict=True):
        total = total * length + index
    return total


def unflat(position: Index, shape: Sequence[int]) -> list[Index]:
    """The indices of the element at a position in row-major order."""
    found = []
    rest = 1
    for length in reversed(shape):
        found.append(Index.of(0) if length == 1 else (position // rest) % length)
        rest *= length
    return found[::-1]
