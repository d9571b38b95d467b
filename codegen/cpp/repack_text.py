"""What `Init` of a class for several instruction sets copies into another order, as C++ tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mdlc.codegen.cpp.variant import Variant
from mdlc.codegen.plan.weights_file import Placed
from mdlc.codegen.weights.repack import Loop, Nest

_ONCE = Loop(1, 0, 0)


@dataclass(frozen=True)
class RepackText:
    """Tables of a class.

    Attributes:
        loops: of a nest; nests: all, as initialisers, the same one only once.
        copied: variants that copy, and their arrays as initialisers.
        nbytes: for each such variant by number, bytes of its copied weights.
        between: bytes of memory for weights in the model's order; 0 where none is needed.
    """

    loops: int
    nests: tuple[str, ...]
    copied: tuple[tuple[Variant, tuple[str, ...]], ...]
    nbytes: dict[int, int]
    between: int


def repack_text(variants: Sequence[Variant], placed: Placed) -> RepackText | None:
    """The tables; None where no variant copies anything."""
    lists: dict[tuple[Nest, ...], int] = {(): 0}
    nests: list[Nest] = []

    def first(told: tuple[Nest, ...]) -> int:
        if told not in lists:
            lists[told] = len(nests)
            nests.extend(told)
        return lists[told]

    copied: list[tuple[Variant, tuple[str, ...]]] = []
    between = 0
    for variant in variants:
        rows = []
        for each in placed.copied[variant.number].values():
            how = each.how
            between = max(between, how.between)
            numbers = [
                each.target, each.source, first(how.unpack), len(how.unpack), first(how.pack),
                len(how.pack),
            ]  # fmt: skip
            rows.append(_braces(numbers))
        if rows:
            copied.append((variant, tuple(rows)))
    if not copied:
        return None
    loops = max(1, *(len(nest.loops) for nest in nests))
    return RepackText(
        loops,
        tuple(_nest(nest, loops) for nest in nests),
        tuple(copied),
        {variant.number: placed.copied_bytes(variant.number) for variant, _ in copied},
        between,
    )


def _nest(nest: Nest, loops: int) -> str:
    padded = (_ONCE,) * (loops - len(nest.loops)) + nest.loops
    fields = (
        _braces([each.count for each in padded]),
        _braces([each.target for each in padded]),
        _braces([each.source for each in padded]),
    )
    return f"{{{nest.target}, {nest.source}, {nest.unit}, {', '.join(fields)}}}"


def _braces(values: Sequence[int]) -> str:
    return "{" + ", ".join(map(str, values)) + "}"
