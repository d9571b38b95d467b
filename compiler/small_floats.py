"""Floating-point formats of 4 to 16 bits that tensors are stored in.

Sources: ONNX, "Float stored in 8 bits" and "Float stored in 4 bits"; Micikevicius et al., "FP8
Formats for Deep Learning" (arXiv 2209.05433); Noune et al., "8-bit Numerical Formats for Deep
Neural Networks" (arXiv 2206.02915); OCP Microscaling Formats specification 1.0.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from mdlc.compiler.types import DType


class Specials(enum.Enum):
    """What a format has besides finite numbers.

    IEEE: infinities and NaN in the largest exponent.
    NAN: NaN in place of the largest magnitude, no infinity.
    UNSIGNED_ZERO: NaN in place of minus zero, no infinity.
    NONE: finite numbers only.
    """

    IEEE = "ieee"
    NAN = "nan"
    UNSIGNED_ZERO = "unsigned zero"
    NONE = "none"


@dataclass(frozen=True)
class SmallFloat:
    """A sign, exponent bits and mantissa bits; with exponent 0 the numbers are subnormal.

    Attributes:
        bias: what is subtracted from the exponent.
    """

    exponent: int
    mantissa: int
    bias: int
    specials: Specials

    @property
    def sign(self) -> int:
        """The bit of the sign."""
        return 1 << (self.exponent + self.mantissa)

    @property
    def infinity(self) -> int | None:
        """The code of infinity, if there is one."""
        all_ones = ((1 << self.exponent) - 1) << self.mantissa
        return all_ones if self.specials is Specials.IEEE else None

    @property
    def nan(self) -> int | None:
        """The code of a NaN, if there is one."""
        if self.specials is Specials.IEEE:  # quiet
            return int(self.infinity or 0) | 1 << (self.mantissa - 1)
        if self.specials is Specials.NAN:
            return self.sign - 1
        return self.sign if self.specials is Specials.UNSIGNED_ZERO else None

    @property
    def largest(self) -> int:
        """The code of the largest finite number."""
        if self.infinity is not None:
            return self.infinity - 1
        return self.sign - (2 if self.specials is Specials.NAN else 1)


SMALL_FLOATS = {
    DType.BF16: SmallFloat(8, 7, 127, Specials.IEEE),
    DType.F8E4M3FN: SmallFloat(4, 3, 7, Specials.NAN),
    DType.F8E4M3FNUZ: SmallFloat(4, 3, 8, Specials.UNSIGNED_ZERO),
    DType.F8E5M2: SmallFloat(5, 2, 15, Specials.IEEE),
    DType.F8E5M2FNUZ: SmallFloat(5, 2, 16, Specials.UNSIGNED_ZERO),
    DType.F6E2M3: SmallFloat(2, 3, 1, Specials.NONE),
    DType.F6E3M2: SmallFloat(3, 2, 3, Specials.NONE),
    DType.F4E2M1: SmallFloat(2, 1, 1, Specials.NONE),
}
