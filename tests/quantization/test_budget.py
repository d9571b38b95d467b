"""The fewest layers in float inside a budget."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mdlc.compiler.errors import MdlcError
from mdlc.quantization.budget import keep_fewest

RANKING = [f"layer{i}" for i in range(23)]


def losing(first: float, until: int) -> object:
    """A network that loses `first` points until `until` layers of the ranking are in float."""

    def measure(kept: Sequence[str]) -> float:
        assert list(kept) == RANKING[: len(kept)]
        return first * max(until - len(kept), 0) / until if until else 0.0

    return measure


@pytest.mark.parametrize("until", range(24))
def test_no_more_than_needed_are_kept(until: int) -> None:
    measure = losing(5.0, until)
    found = keep_fewest(RANKING, measure, 0.0)  # type: ignore[arg-type]
    assert found.kept == tuple(RANKING[:until])
    assert found.lost == 0.0
    assert len(found.trials) <= 12


def test_a_budget_that_holds_at_once_keeps_none() -> None:
    found = keep_fewest(RANKING, lambda kept: 0.3, 0.5)
    assert (found.kept, found.lost, found.trials) == ((), 0.3, ((0, 0.3),))


def test_part_of_the_loss_may_be_left() -> None:
    found = keep_fewest(RANKING, losing(5.0, 20), 2.5)  # type: ignore[arg-type]
    assert len(found.kept) == 10
    assert found.lost == pytest.approx(2.5)


def test_a_budget_that_cannot_be_kept_is_refused() -> None:
    with pytest.raises(MdlcError, match=r"--accuracy-drop: 1.00 points are lost with all 23"):
        keep_fewest(RANKING, lambda kept: 1.0, 0.5)
