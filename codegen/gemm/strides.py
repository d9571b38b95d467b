"""Loops over strided tensors: strides of views, joined dimensions, loop nests as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mdlc.codegen.code import Body, Pointer, Statement, body, offset
from mdlc.codegen.kernel import View
from mdlc.codegen.threads import best_level, loop


def logical_strides(view: View) -> tuple[int, ...]:
    """Elements from one index to the next along each logical axis."""
    shape = view.type.physical_shape
    physical = [0] * len(shape)
    step = 1
    for position in reversed(range(len(shape))):
        physical[position] = step
        step = view.pitch if position == len(shape) - 1 else step * shape[position]
    strides = [0] * len(shape)
    for position, axis in enumerate(view.type.layout.axes(len(shape))):
        strides[axis] = physical[position]
    return tuple(strides)


def broadcast_strides(view: View, rank: int) -> tuple[int, ...]:
    """Strides along the axes of a broadcast result of a given rank; 0 where repeated."""
    own = [
        0 if length == 1 else stride
        for length, stride in zip(view.type.shape, logical_strides(view), strict=True)
    ]
    return (0,) * (rank - len(own)) + tuple(own)


@dataclass(frozen=True)
class Dim:
    """A loop: how many trips, and the elements that each operand advances per trip."""

    count: int
    strides: tuple[int, ...]


def joined(shape: Sequence[int], strides: Sequence[Sequence[int]], by: int) -> list[Dim]:
    """Loops over a shape, outermost first by the strides of operand `by`, joined where they can.

    Args:
        strides: for each operand, its stride along each axis.
    """
    dims = [
        Dim(count, tuple(s[axis] for s in strides))
        for axis, count in enumerate(shape)
        if count != 1
    ]
    dims.sort(key=lambda dim: -abs(dim.strides[by]))
    found: list[Dim] = []
    for dim in dims:
        if found and all(
            outer == inner * dim.count
            for outer, inner in zip(found[-1].strides, dim.strides, strict=True)
        ):
            found[-1] = Dim(found[-1].count * dim.count, dim.strides)
        else:
            found.append(dim)
    return found


def nest(
    counts: Sequence[int],
    *statements: Statement | Sequence[Statement],
    first: int = 0,
    shared: bool = False,
) -> Body:
    """Statements inside loops over i0, i1, ...; loops of one trip are left out.

    Args:
        first: the number of the first loop's variable.
        shared: the iterations are independent, and threads may share one of the loops.
    """
    loops = [(f"i{index}", count) for index, count in enumerate(counts, first) if count > 1]
    chosen = best_level(loops) if shared and loops else ""
    inside = body(*statements)
    for name, count in reversed(loops):
        inside = loop(name, count, inside, shared=name == chosen)
    return inside


def pointer(
    base: str, dims: Sequence[Dim], operand: int, fixed: int = 0, first: int = 0
) -> Pointer:
    """`base` advanced by the loop variables of `nest` for one operand."""
    loops = [(dim.count, f"i{i}", dim.strides[operand]) for i, dim in enumerate(dims, first)]
    return offset(base, *loops, fixed=fixed)
