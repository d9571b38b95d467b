"""Offsets in the arena from live ranges."""

from __future__ import annotations

from collections.abc import Sequence

from mdlc.codegen.plan import ALIGNMENT, Buffer


def place(sizes: Sequence[int], ranges: Sequence[tuple[int, int]]) -> tuple[list[int], int]:
    """Offsets such that no two buffers that live at the same time overlap, and the arena's size.

    Greedy by size, best fit: the largest buffer first, each into the smallest gap between
    buffers already placed whose live range meets its own (Pisarchyk and Lee, "Efficient Memory
    Management for Deep Neural Net Inference", arXiv 2001.03288, section 5.2).

    Args:
        sizes: bytes of each buffer.
        ranges: first and last step of each, inclusive.
    """
    padded = [-(-size // ALIGNMENT) * ALIGNMENT for size in sizes]
    order = sorted(range(len(sizes)), key=lambda i: (-padded[i], ranges[i], i))
    offsets = [0] * len(sizes)
    placed: list[int] = []
    for index in order:
        first, last = ranges[index]
        rivals = sorted(
            (offsets[j], offsets[j] + padded[j])
            for j in placed
            if ranges[j][0] <= last and first <= ranges[j][1]
        )
        best_gap, best_offset, end = None, 0, 0
        for start, stop in rivals:
            gap = start - end
            if gap >= padded[index] and (best_gap is None or gap < best_gap):
                best_gap, best_offset = gap, end
            end = max(end, stop)
        offsets[index] = best_offset if best_gap is not None else end
        placed.append(index)
    total = max((offsets[i] + padded[i] for i in range(len(sizes))), default=0)
    return offsets, total


def lower_bound(buffers: Sequence[Buffer]) -> int:
    """The largest sum of sizes of buffers alive at one step: no arena can be smaller."""
    steps = sorted({buffer.first for buffer in buffers})
    return max(
        (
            sum(-(-b.nbytes // ALIGNMENT) * ALIGNMENT for b in buffers if b.first <= at <= b.last)
            for at in steps
        ),
        default=0,
    )
