"""Neighbouring positions that are computed alike, so that borders cost no branches at run time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    """Equal neighbouring rows or tiles: the first, how many, and what they are."""

    first: int
    count: int
    kind: tuple[int, ...]


def group_runs(kinds: Sequence[tuple[int, tuple[int, ...]]]) -> list[Run]:
    """Neighbours of equal kind joined; items are (position, kind)."""
    runs = []
    for kind, members in itertools.groupby(kinds, key=lambda item: item[1]):
        positions = [position for position, _ in members]
        runs.append(Run(positions[0], len(positions), kind))
    return runs


def inside_taps(start: int, taps: int, dilation: int, length: int) -> tuple[int, int]:
    """First filter tap inside [0, length) and how many are, for a window that begins at `start`."""
    inside = [tap for tap in range(taps) if 0 <= start + tap * dilation < length]
    return (inside[0] if inside else 0, len(inside))
