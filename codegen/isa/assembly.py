"""Inline assembly that says once what it does several times."""

from __future__ import annotations

from collections.abc import Sequence


def repeat(groups: Sequence[Sequence[str]]) -> list[str]:
    """The lines of all groups, those of equal neighbours once, between .rept and .endr.

    One group may be repeated, or two that take turns, as where registers alternate.
    """
    for period in (1, 2):
        count = len(groups) // period
        if count > 1 and list(groups) == [*groups[:period]] * count:
            once = [line for group in groups[:period] for line in group]
            return [f".rept {count}", *once, ".endr"]
    return [line for group in groups for line in group]
