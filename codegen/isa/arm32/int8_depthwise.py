"""Depthwise convolutions of 8-bit integers on 32-bit ARM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mdlc.codegen.isa.arm import int8_depthwise as aarch64
from mdlc.codegen.isa.int8 import Taps


class MultiplyForm(aarch64.MultiplyForm):
    """Eight channels widened to 16 bits, each tap multiplied and added in 32, as on AArch64.

    What rescales is read again for every pixel: there are half as many registers.
    """

    keeps_scale, vector = False, "int32x4_t"

    def load_column(self, column: int, rows: Sequence[str], flip: bool) -> Iterator[str]:
        for r, row in enumerate(rows):
            value = f"vmovl_s8(vld1_s8({row}))"
            if flip:
                value = f"vreinterpretq_s16_u16(vmovl_u8(vld1_u8({row})))"
            yield f"const int16x8_t c{column}_{r} = {value};"

    def multiply(self, pixel: int, column: int, tap: int, taps: Taps) -> Iterator[str]:
        for r in range(taps.rows):
            for v, half in enumerate(("low", "high")):
                acc = f"acc{pixel}_{v}"
                x, w = (f"vget_{half}_s16({name})" for name in (f"c{column}_{r}", f"w{r}_{tap}"))
                yield f"{acc} = vmlal_s16({acc}, {x}, {w});"
