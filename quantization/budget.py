"""The fewest layers in float that keep the loss of accuracy inside a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mdlc.compiler.errors import MdlcError


@dataclass(frozen=True)
class Choice:
    """What was kept in float, and why.

    Attributes:
        kept: layers, worst first.
        lost: points of top-1 that the network with them in float loses.
        trials: number of layers kept and points lost, in the order tried.
    """

    kept: tuple[str, ...]
    lost: float
    trials: tuple[tuple[int, float], ...]


def keep_fewest(
    ranking: Sequence[str],
    measure: Callable[[Sequence[str]], float],
    allowed: float,
    progress: Callable[[str], None] | None = None,
) -> Choice:
    """The shortest head of a ranking that, kept in float, keeps the loss inside a budget.

    Doubles the number of layers until it is enough, then bisects: the logarithm of the number of
    layers is what it costs. Loss is taken to fall as more layers are in float.

    Args:
        ranking: layers, the one whose precision is missed most first.
        measure: points lost with the given layers in float.
        allowed: points.

    Raises:
        MdlcError: not even all of them in float are enough.
    """
    trials: list[tuple[int, float]] = []

    def lost(count: int) -> float:
        found = measure(ranking[:count])
        trials.append((count, found))
        if progress is not None:
            progress(f"{count} of {len(ranking)} layers in float: {found:.2f} points lost")
        return found

    enough, too_few, best = 0, -1, lost(0)
    while best > allowed:
        if enough == len(ranking):
            raise MdlcError(
                f"{best:.2f} points are lost with all {enough} layers in float",
                node="--accuracy-drop",
                hint="allow more, or calibrate on pictures like those that are counted",
            )
        too_few, enough = enough, min(max(2 * enough, 1), len(ranking))
        best = lost(enough)
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        found = lost(middle)
        if found > allowed:
            too_few = middle
        else:
            enough, best = middle, found
    return Choice(tuple(ranking[:enough]), best, tuple(trials))
