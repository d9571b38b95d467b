"""Offsets in the arena from live ranges."""

from __future__ import annotations

from collections.abc import Sequence

from mdlc.codegen.plan.plan import ALIGNMENT, Buffer

# Orders tried where the first one leaves gaps; networks need a handful.
ROUNDS = 200


def place(sizes: Sequence[int], ranges: Sequence[tuple[int, int]]) -> tuple[list[int], int]:
    """Offsets such that no two buffers that live at the same time overlap, and the arena's size.

    Greedy by size, best fit: the largest buffer first, each into the smallest gap between
    buffers already placed whose live range meets its own (Pisarchyk and Lee, "Efficient Memory
    Management for Deep Neural Net Inference", arXiv 2001.03288, section 5.2). Where that leaves
    more than the live tensors need, the buffer that ends highest goes earlier in the order, and
    all are placed again, until nothing is left to gain or `ROUNDS` orders were tried.

    Args:
        sizes: bytes of each buffer.
        ranges: first and last step of each, inclusive.
    """
    padded = [-(-size // ALIGNMENT) * ALIGNMENT for size in sizes]
    bound = _live_bytes(padded, ranges)
    order = sorted(range(len(sizes)), key=lambda i: (-padded[i], ranges[i], i))
    best, best_total = _in_order(order, padded, ranges)
    tried = {tuple(order)}
    offsets, total = best, best_total
    for _ in range(ROUNDS):
        if best_total <= bound:
            break
        highest = max(order, key=lambda i: (offsets[i] + padded[i], -order.index(i)))
        moved = _earlier(order, highest, tried)
        if moved is None:
            break
        order = moved
        tried.add(tuple(order))
        offsets, total = _in_order(order, padded, ranges)
        if total < best_total:
            best, best_total = offsets, total
    return best, best_total


def _earlier(order: list[int], index: int, tried: set[tuple[int, ...]]) -> list[int] | None:
    """The order with `index` moved forward, the least far that was not tried yet."""
    at = order.index(index)
    rest = order[:at] + order[at + 1 :]
    for to in range(at - 1, -1, -1):
        moved = [*rest[:to], index, *rest[to:]]
        if tuple(moved) not in tried:
            return moved
    return None


def _in_order(
    order: Sequence[int], padded: Sequence[int], ranges: Sequence[tuple[int, int]]
) -> tuple[list[int], int]:
    """Each buffer of `order` in turn into the smallest gap that holds it."""
    offsets = [0] * len(padded)
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
    return offsets, max((offsets[i] + padded[i] for i in order), default=0)


def _live_bytes(padded: Sequence[int], ranges: Sequence[tuple[int, int]]) -> int:
    """The largest sum of buffers alive at one step."""
    return max(
        (
            sum(
                size
                for size, (first, last) in zip(padded, ranges, strict=True)
                if first <= at <= last
            )
            for at in sorted({first for first, _ in ranges})
        ),
        default=0,
    )


def lower_bound(buffers: Sequence[Buffer]) -> int:
    """The largest sum of sizes of buffers alive at one step: no arena can be smaller."""
    return _live_bytes(
        [-(-b.nbytes // ALIGNMENT) * ALIGNMENT for b in buffers],
        [(b.first, b.last) for b in buffers],
    )
