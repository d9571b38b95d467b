"""Inline assembly as text of C++."""

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


def macro(name: str, parameters: Sequence[str], lines: Sequence[str]) -> list[str]:
    """The definition of an assembler's macro, which the same statement has to purge."""
    return [f".macro {name} {', '.join(parameters)}", *lines, ".endm"]


def statement(
    lines: Sequence[str],
    outputs: Sequence[str],
    inputs: Sequence[str],
    clobbers: Sequence[str],
) -> str:
    """An asm statement of C++, its lines as a raw string; it may read and write memory."""
    text, depth = "", 0
    for line in lines:
        word = line.split()[0]
        depth -= word in (".endr", ".endm", ".endif", ".else", ".elseif")
        text += f"    {'  ' * depth}{line}\n"
        depth += word in (".rept", ".irp", ".macro", ".if", ".else", ".elseif")
    clobbered = ", ".join(f'"{each}"' for each in (*clobbers, "memory"))
    return (
        f'asm volatile(R"(\n{text}  )"\n: {", ".join(outputs)}\n: {", ".join(inputs)}\n'
        f": {clobbered});"
    )
