"""Depthwise convolutions of 8-bit integers on x86."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from mdlc.codegen.byte_depthwise import DepthwiseForm, Taps
from mdlc.codegen.integers import Finish, Integers
from mdlc.codegen.kernel import Microkernel
from mdlc.compiler.types import Array


class VnniForm(DepthwiseForm):
    """x86: unpacking interleaves four rows of 16, 32 or 64 channels, vpdpbusd multiplies them.

    Unpacking works inside 128 bits, and so does packing back: lanes come in an order of their
    own, bytes in the right one.
    """

    vectors = 4
    keeps_scale = False

    def __init__(self, channels: int, rescale: Callable[..., Microkernel]) -> None:
        """`rescale(width, wide=...)`: the function that rescales vectors of so many bits."""
        self.channels, self.name = channels, str(channels)
        self._make_rescale = rescale
        self._p = "_mm" if channels == 16 else f"_mm{8 * channels}"
        self._v = f"__m{8 * channels}i"
        self._si = f"si{8 * channels}"
        self.load = f"{self._p}_loadu_{self._si}(reinterpret_cast<const {self._v}*>({{0}}))"

    def order(self) -> list[int]:
        blocks = range(self.channels // 16)
        return [16 * b + 4 * v + i for v in range(4) for b in blocks for i in range(4)]

    def pack(self, weights: Array) -> Array:
        channels, rows, columns = weights.shape
        padded = np.zeros((self.channels, -(-rows // 4) * 4, columns), np.int8)
        padded[:channels, :rows] = weights
        ordered = padded[self.order()].reshape(4, self.channels // 4, -1, 4, columns)
        # [column][group][vector][lane][4 rows]
        return np.ascontiguousarray(ordered.transpose(4, 2, 0, 1, 3)).reshape(-1)

    def load_weights(self, taps: Taps) -> Iterator[str]:
        groups = -(-taps.rows // 4)
        for tap in range(taps.columns):
            for g in range(groups):
                for v in range(4):
                    at = self.channels * (4 * (tap * groups + g) + v)
                    yield f"const {self._v} w{tap}_{g}_{v} = {self.load.format(f'b + {at}')};"

    def load_column(self, column: int, rows: Sequence[str], flip: bool) -> Iterator[str]:
        p, v, zero = self._p, self._v, f"{self._p}_setzero_{self._si}()"
        for g in range(-(-len(rows) // 4)):
            name = f"{column}_{g}"
            values = []
            for r, row in enumerate(rows[4 * g : 4 * g + 4]):
                value = self.load.format(row)
                if flip:
                    flipped = f"{p}_set1_epi8(static_cast<char>(0x80))"
                    value = f"{p}_xor_{self._si}({value}, {flipped})"
                yield f"const {v} r{name}_{r} = {value};"
                values.append(f"r{name}_{r}")
            values += [zero] * (4 - len(values))
            for half in ("lo", "hi"):
                for pair in (0, 2):
                    unpacked = f"{p}_unpack{half}_epi8({values[pair]}, {values[pair + 1]})"
                    if values[pair] == zero:
                        unpacked = zero
                    yield f"const {v} {half}{name}_{pair} = {unpacked};"
                for index, which in enumerate(("lo", "hi")):
                    number = index + (2 if half == "hi" else 0)
                    words = f"{half}{name}_0, {half}{name}_2"
                    yield f"const {v} c{name}_{number} = {p}_unpack{which}_epi16({words});"

    def multiply(self, pixel: int, column: int, tap: int, taps: Taps) -> Iterator[str]:
        for g in range(-(-taps.rows // 4)):
            for v in range(4):
                acc = f"acc{pixel}_{v}"
                operands = f"{acc}, c{column}_{g}_{v}, w{tap}_{g}_{v}"
                yield f"{acc} = {self._p}_dpbusd_epi32({operands});"

    def instructions(self, taps: Taps) -> tuple[float, float]:
        groups = -(-taps.rows // 4)
        return 2.0 * taps.rows + 8.0 * groups, 4.0 * groups

    def finish(
        self, pixel: int, where: str, finish: Finish, part: int, integers: Integers
    ) -> tuple[list[str], list[Microkernel]]:
        p = self._p
        fields = integers.used_fields(finish)
        lanes = self.channels // 4
        lines, values = [], []
        rescale = self._make_rescale(self.channels * 8, wide=finish.wide)
        for v in range(4):
            loaded = ", ".join(
                self.load.format(f"scale + {(v * len(fields) + index) * lanes}")
                for index in range(1, len(fields))
            )
            lines.append(f"const {self._v} z{v} = {rescale.name}(acc{pixel}_{v}, {loaded});")
            values.append(f"z{v}")
        unsigned = "u8" in finish.target.value
        words = [f"{p}_packs_epi32({values[i]}, {values[i + 1]})" for i in (0, 2)]
        text = f"{p}_pack{'us' if unsigned else 's'}_epi16({words[0]}, {words[1]})"
        sign = "epu8" if unsigned else "epi8"
        low, high = finish.bounded
        if low:
            text = f"{p}_max_{sign}({text}, {p}_set1_epi8(static_cast<char>(kLow)))"
        if high:
            text = f"{p}_min_{sign}({text}, {p}_set1_epi8(static_cast<char>(kHigh)))"
        if part:
            lines.append(f"_mm_mask_storeu_epi8({where}, (1U << {part}) - 1U, {text});")
        else:
            pointer = f"reinterpret_cast<{self._v}*>({where})"
            lines.append(f"{p}_storeu_{self._si}({pointer}, {text});")
        return lines, [rescale]
