"""What becomes of the accumulators of 8-bit products: rescaled, bounded, added to and stored."""

from __future__ import annotations

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
    result: Finish

    @property
    def near(self) -> bool:
        """Whether an instruction that narrows to 16 bits shifts as far."""
        return self.shift <= 16


@dataclass(frozen=True)
class Finish:
    """What happens to accumulators: rescaled, bounded and stored as 8 bits, or stored as they are.

    Attributes:
        source: the input's type; target: the output's (i32: accumulators are stored).
        zero: the output's zero point; low, high: its bounds.
        wide: whether a factor is 1/4 or more, so that accumulators are first shifted up.
        folded: whether the zero point is among the per-channel numbers.
        least: whether a weight is -128, so that two products do not fit 16 bits.
        rising: whether the zero point is the least byte (as behind a Relu) and is added by the
            narrowing itself, where the instruction set has use for that.
        addition: what is added to the bytes before they are stored, or None.
        prefix: of the names of parameters.
    """

    source: DType
    target: DType
    zero: int = 0
    low: int = 0
    high: int = 0
    wide: bool = False
    folded: bool = False
    least: bool = False
    rising: bool = False
    addition: Addition | None = None
    prefix: str = "k"

    @property
    def output(self) -> DType:
        """Type of what is stored."""
        return self.addition.result.target if self.addition else self.target

    @property
    def raw(self) -> bool:
        """Whether accumulators are stored as they are."""
        return self.target is DType.I32

    @property
    def bounded(self) -> tuple[bool, bool]:
        """Whether low and high are narrower than the type."""
        if self.raw:
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
        middle += "_wide" if self.wide else ""
        middle += "_least" if self.least else ""
        middle += "_rising" if self.rising else ""
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
        found = {} if self.raw or self.folded or self.rising else {f"{p}Zero": self.zero}
        found |= {f"{p}Low": self.low} if low else {}
        return found | ({f"{p}High": self.high} if high else {})

    def formula(self, total: str) -> str:
        """The result around a scalar formula, for comments."""
        if self.raw:
            return total
        if self.addition:
            first = f"bound(rescale({total}) + kZero, kLow, kHigh)"
            whole = f"(({first} - kZero) kMa + (other[p][n] - kOtherZero) kMb) / 2^kShift"
            text = f"round({whole}) + kSumZero"
            low, high = self.addition.result.bounded
            text = f"max({text}, kSumLow)" if low else text
            return f"min({text}, kSumHigh)" if high else text
        zero = "zero" if self.folded else "-128" if self.rising else "kZero"
        text = f"rescale({total}) + {zero}"
        low, high = self.bounded
        text = f"max({text}, kLow)" if low else text
        return f"min({text}, kHigh)" if high else text
