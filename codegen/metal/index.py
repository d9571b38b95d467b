"""Integer expressions of kernels, folded as they are built: no division by one, no dead term."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Index:
    """An unsigned expression and the number of values that it can have (0 .. count - 1).

    Attributes:
        text: the name of a variable, or the expression as it is written.
        parts: what it was made of; none for a variable or a number.
        make: the operation that made it, to be done again where a variable is replaced.
    """

    text: str
    count: int
    parts: tuple[Index, ...] = field(default=(), compare=False)
    make: Callable[..., Index] | None = field(default=None, compare=False)

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
        count = self.count + other.count - 1
        return Index(f"{self.text} + {other.text}", count, (self, other), Index.__add__)

    def __sub__(self, other: int) -> Index:
        if other == 0:
            return self
        if self.fixed is not None:
            return Index.of(self.fixed - other)
        count = max(self.count - other, 1)
        return Index(f"{self.text} - {other}", count, (self,), lambda index: index - other)

    def __rsub__(self, other: int) -> Index:
        """A number, no smaller than the index can be, minus it."""
        if self.fixed is not None:
            return Index.of(other - self.fixed)
        return Index(f"{other} - {self.factor}", other + 1, (self,), lambda index: other - index)

    def __mul__(self, by: int) -> Index:
        if self.fixed is not None:
            return Index.of(self.fixed * by)
        if by == 1:
            return self
        count = (self.count - 1) * by + 1
        return Index(f"{self.factor} * {by}", count, (self,), lambda index: index * by)

    def __floordiv__(self, by: int) -> Index:
        if self.fixed is not None:
            return Index.of(self.fixed // by)
        if by == 1:
            return self
        if self.count <= by:
            return Index.of(0)
        count = (self.count - 1) // by + 1
        return Index(f"{self.factor} / {by}", count, (self,), lambda index: index // by)

    def __mod__(self, by: int) -> Index:
        if self.fixed is not None:
            return Index.of(self.fixed % by)
        if by == 1:
            return Index.of(0)
        if self.count <= by:
            return self
        return Index(f"{self.factor} % {by}", by, (self,), lambda index: index % by)

    def at_most(self, most: int) -> Index:
        """The index, or a number where that is smaller."""
        if self.count - 1 <= most:
            return self
        return Index(f"min({self}, {most}u)", most + 1, (self,), lambda index: index.at_most(most))

    def below(self, count: int) -> Index:
        """The same expression where it is known to be smaller than `count`."""
        if self.count <= count:
            return self
        return replace(self, count=count)

    def uses(self, variable: str) -> bool:
        """Whether the value depends on a variable."""
        if self.count == 1:
            return False
        return self.text == variable or any(part.uses(variable) for part in self.parts)

    def with_variables(self, values: Mapping[str, Index]) -> Index:
        """The expression for other indices in the place of variables."""
        if self.make is None:
            return values.get(self.text, self).below(self.count)
        return self.make(*(part.with_variables(values) for part in self.parts)).below(self.count)

    def behind(self, pointer: str) -> str:
        """A pointer to the element at this index."""
        return pointer if self.fixed == 0 else f"{pointer} + {self}"

    def __str__(self) -> str:
        return "0" if self.count == 1 else self.text

    @property
    def factor(self) -> str:
        """The text as an operand of any operator."""
        text = str(self)
        return f"({text})" if self.make is not None and text == self.text else text


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
