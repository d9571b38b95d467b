"""What becomes of the accumulators of 8-bit products: rescaled, bounded, added to and stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mdlc.compiler.fixed_point import limits
from mdlc.compiler.types import DType


@dataclass(frozen=True)
class Addition:
    """A sum behind rescaling, as of QuantizedAdd, with multipliers for the result and the other.

    Attributes:
        kind: type of the bytes that are added.
        ma, mb, shift: fixed_point.sum_multipliers of the two.
        zero: of the bytes that are added.
        result: zero point, bounds and type of the sum.
    """

    kind: DType
    ma: int
    mb: int
    shift: int
    zero: int
    result: OutputStage

    @property
    def near(self) -> bool:
        """Whether an instruction that narrows to 16 bits shifts as far."""
        return self.shift <= 16


@dataclass(frozen=True)
class OutputStage:
    """What happens to accumulators: rescaled, bounded and stored as 8 bits, or stored as they are.

    Attributes:
        source: the input's type; target: the output's (i32: accumulators are stored).
        zero: the output's zero point; low, high: its bounds.
        shift_left: whether a factor is 1/4 or more, so that accumulators are first shifted up.
        zero_point_folded: whether the zero point is among the per-channel numbers.
        has_min_weight: whether a weight is -128, so that two products do not fit 16 bits.
        narrowing_adds_zero_point: whether the zero point is the smallest byte (as behind a Relu)
            and is added by the narrowing itself, where the instruction set has use for that.
        addition: what is added to the bytes before they are stored, or None.
        prefix: of the names of parameters.
    """

    source: DType
    target: DType
    zero: int = 0
    low: int = 0
    high: int = 0
    shift_left: bool = False
    zero_point_folded: bool = False
    has_min_weight: bool = False
    narrowing_adds_zero_point: bool = False
    addition: Addition | None = None
    prefix: str = "k"

    @property
    def output(self) -> DType:
        """Type of what is stored."""
        return self.addition.result.target if self.addition else self.target

    @property
    def int32_output(self) -> bool:
        """Whether accumulators are stored as they are."""
        return self.target is DType.I32

    @property
    def bounded(self) -> tuple[bool, bool]:
        """Whether low and high are narrower than the type."""
        if self.int32_output:
            return False, False
        low, high = limits(self.target)
        return self.low > low, self.high < high

    @property
    def suffix(self) -> str:
        """In names of functions: types, bounds and the shift up, such as i8_high_i8."""
        low, high = self.bounded
        if added := self.addition:
            middle = f"_add_{'' if added.near else 'far_'}{added.kind.value}{added.result.suffix}"
        else:
            middle = f"{'_low' if low else ''}{'_high' if high else ''}"
        middle += "_shl" if self.shift_left else ""
        middle += "_min_weight" if self.has_min_weight else ""
        middle += "_narrowed_zp" if self.narrowing_adds_zero_point else ""
        return f"{middle}_{self.source.value}{self.target.value}"

    @property
    def parameters(self) -> dict[str, int]:
        """Compile-time integers of a tile, by name."""
        low, high = self.bounded
        p, added = self.prefix, self.addition
        if added:
            found = {"kZero": self.zero, "kLow": self.low, "kHigh": self.high}
            found |= {"kMa": added.ma, "kMb": added.mb, "kShift": added.shift}
            found |= {"kOtherZero": added.zero, "kSumZero": added.result.zero}
            return found | added.result.parameters
        found = (
            {}
            if self.int32_output or self.zero_point_folded or self.narrowing_adds_zero_point
            else {f"{p}Zero": self.zero}
        )
        found |= {f"{p}Low": self.low} if low else {}
        return found | ({f"{p}High": self.high} if high else {})

    def formula(self, total: str) -> str:
        """The result around a scalar formula, for comments."""
        if self.int32_output:
            return total
        if self.addition:
            first = f"bound(rescale({total}) + kZero, kLow, kHigh)"
            whole = f"(({first} - kZero) kMa + (other[p][n] - kOtherZero) kMb) / 2^kShift"
            text = f"round({whole}) + kSumZero"
            low, high = self.addition.result.bounded
            text = f"max({text}, kSumLow)" if low else text
            return f"min({text}, kSumHigh)" if high else text
        zero = (
            "+ zero"
            if self.zero_point_folded
            else "- 128"
            if self.narrowing_adds_zero_point
            else "+ kZero"
        )
        text = f"rescale({total}) {zero}"
        low, high = self.bounded
        text = f"max({text}, kLow)" if low else text
        return f"min({text}, kHigh)" if high else text


def stored_together(values: Sequence[str], part: int) -> Iterator[tuple[Sequence[str], int, int]]:
    """Vectors of four i32 that are stored together: four, then two, then one.

    Args:
        part: lanes of the last vector that are stored (0: all).

    Yields:
        The vectors, where their first byte goes, and how many bytes are stored.
    """
    at = 0
    while at < len(values):
        left = len(values) - at
        group = values[at : at + (4 if left >= 3 else left)]
        last = at + len(group) == len(values)
        yield group, 4 * at, 4 * len(group) - (4 - part if part and last else 0)
        at += len(group)
