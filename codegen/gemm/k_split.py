"""Long sums of products cut into shorter ones, for the sake of precision.

Rounding errors of a sum of n products in one accumulator grow like the square root of n, of sums
of b products that are added up like that of b + n / b (Higham, "Accuracy and Stability of Numerical
Algorithms", 2002, section 4.2: blocked summation). Each part after the first adds to what the ones
before it have left in the result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

Taps = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Part:
    """A part of the depth of a product, or several that follow each other in a loop.

    Attributes:
        run, taps: as those of the product.
        x: elements of the input before it; before: steps of the packed depth likewise.
        depth: steps of the packed depth in it.
        first, last: whether it is the first, the last of the product.
        count: of equal parts, x_step elements of the input and `depth` steps apart.
    """

    run: int
    taps: Taps
    depth: int
    x: int = 0
    before: int = 0
    first: bool = True
    last: bool = True
    count: int = 1
    x_step: int = 0


def parts(
    run: int, taps: Taps, packed: int, longest: int, unit: int, *, panels: bool
) -> list[Part]:
    """The depth of a product in parts of about `longest` steps (0: one part).

    Args:
        packed: steps of the packed depth; unit: what a part of a run is a multiple of.
        panels: whether the left side lies in panels, so that taps are of no concern.
    """
    if not longest or packed <= longest * 5 // 4:
        return [Part(run, taps, packed)]
    found = list(_run(packed, longest, unit) if panels else _cut(run, taps, 0, 0, longest, unit))
    found = [
        replace(part, first=index == 0, last=index + 1 == len(found))
        for index, part in enumerate(found)
    ]
    return _looped(found)


def _cut(run: int, taps: Taps, x: int, before: int, longest: int, unit: int) -> Iterator[Part]:
    depth = run * math.prod(count for count, _ in taps)
    if depth <= longest * 5 // 4:
        yield Part(run, taps, depth, x, before)
    elif taps:
        (count, step), inner = taps[0], taps[1:]
        each = depth // count
        group = max(1, longest // each)
        for start in range(0, count, group):
            some = min(group, count - start)
            around = ((some, step), *inner) if some > 1 else inner
            yield from _cut(run, around, x + start * step, before + start * each, longest, unit)
    else:
        for part in _run(run, longest, unit):
            yield replace(part, x=x + part.x, before=before + part.before)


def _run(length: int, longest: int, unit: int) -> Iterator[Part]:
    """Parts of a run, of nearly equal length."""
    count = -(-length // longest)
    size = -(-length // count // unit) * unit
    for start in range(0, length, size):
        here = min(size, length - start)
        yield Part(here, (), here, start, start)


def _looped(found: Sequence[Part]) -> list[Part]:
    """Neighbours that differ in their place only joined into loops."""
    joined: list[Part] = []
    for part in found:
        if joined and _same(joined[-1], part):
            one = joined[-1]
            reached = one.x + one.count * one.x_step
            step = one.x_step if one.count > 1 else part.x - one.x
            if one.count == 1 or part.x == reached:
                joined[-1] = replace(one, count=one.count + 1, x_step=step)
                continue
        joined.append(part)
    return joined


def _same(one: Part, other: Part) -> bool:
    shape = (one.run, one.taps, one.depth, one.first, one.last)
    return shape == (other.run, other.taps, other.depth, other.first, other.last)
