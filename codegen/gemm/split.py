"""Cutting a length into tiles of exact sizes, so that no tile is masked or partly wasted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Chunk:
    """`count` neighbouring pieces of `size`, the first at `first`."""

    first: int
    size: int
    count: int


def split_evenly(length: int, most: int) -> tuple[Chunk, ...]:
    """The fewest pieces of at most `most`, their sizes differing by at most one."""
    pieces = -(-length // most)
    size, larger = divmod(length, pieces)
    chunks = []
    if larger:
        chunks.append(Chunk(0, size + 1, larger))
    if pieces - larger:
        chunks.append(Chunk(larger * (size + 1), size, pieces - larger))
    return tuple(chunks)
