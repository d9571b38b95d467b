"""Live ranges of buffers, buffers that take over others' memory, and offsets in the arena."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from mdlc.codegen.kernel import View
from mdlc.codegen.plan.plan import ALIGNMENT, Buffer, Names, Plan

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


def place_plan(plan: Plan, sizes: Sequence[tuple[str, int]]) -> Plan:
    """Shares buffers in place, drops those that nothing touches, and sets offsets.

    Args:
        sizes: name and bytes of every buffer that the plan's views are of.
    """
    shared = _share_in_place(plan, sizes)
    plan = _map_views(plan, lambda view: replace(view, buffer=shared.get(view.buffer, view.buffer)))
    kept = [state.view.buffer for state in plan.states]
    buffers, total, number = placed(sizes, _ranges(plan, len(sizes)), kept)
    past = max((step.kernel.reads_past for step in plan.steps), default=0)
    total += -(-past // ALIGNMENT) * ALIGNMENT
    plan = _map_views(plan, lambda view: replace(view, buffer=number[view.buffer]))
    return replace(plan, buffers=buffers, arena_bytes=total)


def placed(
    sizes: Sequence[tuple[str, int]],
    ranges: Sequence[tuple[int, int]],
    first: Sequence[int] = (),
) -> tuple[tuple[Buffer, ...], int, dict[int, int]]:
    """Buffers at their offsets, the arena's size, and each one's number of those that are kept.

    Args:
        sizes: names and bytes. ranges: first and last step; buffers whose last step is before
            the first are dropped.
        first: indices of buffers that live always and lie at the arena's start, in this order.
    """
    at: dict[int, int] = {}
    start = 0
    for index in first:
        at[index] = start
        start += -(-sizes[index][1] // ALIGNMENT) * ALIGNMENT
    kept = [index for index, (begin, end) in enumerate(ranges) if begin <= end]
    others = [index for index in kept if index not in at]
    offsets, total = place([sizes[i][1] for i in others], [ranges[i] for i in others])
    at.update((i, start + offset) for i, offset in zip(others, offsets, strict=True))
    total += start
    names = Names()
    buffers = tuple(Buffer(names.unique(sizes[i][0]), sizes[i][1], at[i], *ranges[i]) for i in kept)
    return buffers, total, {index: position for position, index in enumerate(kept)}


def _ranges(plan: Plan, count: int) -> list[tuple[int, int]]:
    """First and last step that touch each buffer; -1 and len(steps) are the copies in and out."""
    touched: list[list[int]] = [[] for _ in range(count)]
    for port in plan.inputs:
        touched[port.view.buffer].append(-1)
    if plan.frame is not None and plan.frame.scratch is not None:
        touched[plan.frame.scratch.buffer].append(-1)
    for unit in plan.units():  # all memory of a group is used until its last band
        for step in (plan.steps[index] for index in unit):
            for view in (*step.inputs, step.output, *([step.scratch] if step.scratch else [])):
                touched[view.buffer] += (unit[0], unit[-1])
    for port in plan.outputs:
        touched[port.view.buffer].append(len(plan.steps))
    if plan.answer_scratch is not None:
        touched[plan.answer_scratch.buffer].append(len(plan.steps))
    for state in plan.states:
        touched[state.view.buffer].append(-1)
        for view in state.views:
            touched[view.buffer].append(len(plan.steps))
    return [live_range(at) for at in touched]


def live_range(touched: Sequence[int]) -> tuple[int, int]:
    """First and last of the steps that touch a buffer; a last one before the first for none."""
    return (min(touched), max(touched)) if touched else (0, -1)


def _share_in_place(plan: Plan, sizes: Sequence[tuple[str, int]]) -> dict[int, int]:
    """Buffers that take over the memory of an input that dies in the step that writes them."""
    ranges = _ranges(plan, len(sizes))
    owner = list(range(len(sizes)))
    last = [r[1] for r in ranges]
    for number, step in enumerate(plan.steps):
        out = step.output
        if ranges[out.buffer][0] != number or out.offset or not out.dense:
            continue
        runtime = [i for i in step.node.inputs if i.constant is None]
        for index in step.kernel.in_place(step.node):
            source_node = step.node.inputs[index]
            if source_node.constant is not None:
                continue
            source = step.inputs[runtime.index(source_node)]
            root = owner[source.buffer]
            others = [
                owner[view.buffer]
                for view, node in zip(step.inputs, runtime, strict=True)
                if node is not source_node
            ]
            if (
                last[root] == number
                and root not in others
                and not source.offset
                and source.dense
                and sizes[root][1] >= sizes[out.buffer][1]
                and root != owner[out.buffer]
            ):
                owner[out.buffer] = root
                last[root] = ranges[out.buffer][1]
                break
    return {index: root for index, root in enumerate(owner) if index != root}


def _map_views(plan: Plan, change: Callable[[View], View]) -> Plan:
    steps = tuple(
        replace(
            step,
            inputs=tuple(change(view) for view in step.inputs),
            output=change(step.output),
            scratch=change(step.scratch) if step.scratch else None,
        )
        for step in plan.steps
    )
    inputs = tuple(replace(port, view=change(port.view)) for port in plan.inputs)
    outputs = tuple(replace(port, view=change(port.view)) for port in plan.outputs)
    states = tuple(
        replace(
            state,
            view=change(state.view),
            made=change(state.made),
            staged=change(state.staged) if state.staged else None,
        )
        for state in plan.states
    )
    frame = plan.frame
    if frame is not None and frame.scratch is not None:
        frame = replace(frame, scratch=change(frame.scratch))
    answer = change(plan.answer_scratch) if plan.answer_scratch is not None else None
    return replace(plan, steps=steps, inputs=inputs, outputs=outputs, states=states, frame=frame,
                   answer_scratch=answer)  # fmt: skip
