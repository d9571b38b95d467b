"""Which loop threads share.

Kernels give loops of independent iterations (codegen/code.py: ParallelLoop); what such a loop
becomes is decided where it is rendered. Of nested loops one is shared.
"""

from __future__ import annotations

from collections.abc import Sequence

from mdlc.codegen.code import Body, Loop, ParallelLoop


def balance(count: int) -> float:
    """The share of 2 and of 4 threads' time that `count` equal iterations use, the worse one."""
    return min(count / (threads * -(-count // threads)) for threads in (2, 4))


def best_level(levels: Sequence[tuple[str, int]]) -> str:
    """The loop to share out, of nested ones from the outermost: the first that is balanced."""
    for name, count in levels:
        if balance(count) >= 0.8:
            return name
    return max(levels, key=lambda level: balance(level[1]))[0]


def loop(variable: str, count: int, body: Body, *, shared: bool = False) -> Body:
    """A loop of independent iterations if `shared`, else a plain one; the body for one trip."""
    if count == 1:
        return body
    return (ParallelLoop(variable, ((count, body),)) if shared else Loop(variable, count, body),)


def loop_cases(variable: str, cases: Sequence[tuple[int, Body]], *, shared: bool) -> Body:
    """A loop over independent iterations of several kinds, one kind after the other.

    Args:
        cases: how many of each kind, and their body, in which `variable` counts from 0.
        shared: whether threads share it, all kinds as one loop; else it is a loop for each kind.
    """
    if shared and sum(count for count, _ in cases) > 1:
        return (ParallelLoop(variable, tuple(cases)),)
    return tuple(each for count, body in cases for each in loop(variable, count, body))
