"""Depthwise convolutions of 8-bit integers on x86."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from mdlc.codegen.code import Microkernel, advanced
from mdlc.codegen.isa.int8 import DepthwiseForm, Int8, Taps
from mdlc.codegen.isa.int8_result import OutputStage
from mdlc.compiler.types import DType


class VnniForm(DepthwiseForm):
    """x86: unpacking interleaves four rows of 16, 32 or 64 channels, vpdpbusd multiplies them.

    Unpacking works inside 128 bits, and so does packing back: lanes come in an order of their
    own, bytes in the right one.
    """

    vectors = 4
    keeps_scale, rows_together = False, 4

    def __init__(self, channels: int, rescale: Callable[..., Microkernel]) -> None:
        """`rescale(width, wide=...)`: the function that rescales vectors of so many bits."""
        self.channels, self.name = channels, str(channels)
        self._make_rescale = rescale
        self._p = "_mm" if channels == 16 else f"_mm{8 * channels}"
        self.vector = f"__m{8 * channels}i"
        self._si = f"si{8 * channels}"
        self.load = f"{self._p}_loadu_{self._si}(reinterpret_cast<const {self.vector}*>({{0}}))"

    def order(self) -> list[int]:
        blocks = range(self.channels // 16)
        return [16 * b + 4 * v + i for v in range(4) for b in blocks for i in range(4)]

    def load_weights(self, taps: Taps) -> Iterator[str]:
        groups = -(-taps.rows // 4)
        for tap in range(taps.columns):
            for g in range(groups):
                for v in range(4):
                    at = self.channels * (4 * (tap * groups + g) + v)
                    loaded = self.load.format(advanced("b", at))
                    yield f"const {self.vector} w{tap}_{g}_{v} = {loaded};"

    def load_column(self, column: int, rows: Sequence[str], flip: bool) -> Iterator[str]:
        p, v, zero = self._p, self.vector, f"{self._p}_setzero_{self._si}()"
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

    def stage(
        self, pixel: int, where: str, stage: OutputStage, part: int, int8: Int8
    ) -> tuple[list[str], list[Microkernel]]:
        p = self._p
        rescale = self._make_rescale(self.channels * 8, shift_left=stage.shift_left)
        lines, values = self.rescaled(pixel, 4, rescale, stage, int8)
        unsigned = "u8" in stage.target.value
        words = [f"{p}_packs_epi32({values[i]}, {values[i + 1]})" for i in (0, 2)]
        text = f"{p}_pack{'us' if unsigned else 's'}_epi16({words[0]}, {words[1]})"
        sign = "epu8" if unsigned else "epi8"
        low, high = stage.bounded
        if low:
            text = f"{p}_max_{sign}({text}, {p}_set1_epi8(static_cast<char>(kLow)))"
        if high:
            text = f"{p}_min_{sign}({text}, {p}_set1_epi8(static_cast<char>(kHigh)))"
        if part:
            lines.append(f"_mm_mask_storeu_epi8({where}, (1U << {part}) - 1U, {text});")
        else:
            pointer = f"reinterpret_cast<{self.vector}*>({where})"
            lines.append(f"{p}_storeu_{self._si}({pointer}, {text});")
        return lines, [rescale]


class PairForm(DepthwiseForm):
    """x86 without VNNI: channels widened to 16 bits, rows in pairs, vpmaddwd multiplies them."""

    vectors = 2
    keeps_scale, rows_together = False, 2

    def __init__(
        self, width: int, rescale: Callable[..., Microkernel], part: Microkernel | None
    ) -> None:
        """`width`: bits of a vector. `part`: stores a part of 16 bytes, if masks do not."""
        self.channels, self.name = width // 16, str(width // 16)
        self._make_rescale, self._part, self._width = rescale, part, width
        self._p, self.vector, self._half = f"_mm{width}", f"__m{width}i", f"__m{width // 2}i"
        self._half_load = "_mm256_loadu_si256" if width == 512 else "_mm_loadu_si128"
        self.load = f"{self._p}_loadu_si{width}(reinterpret_cast<const {self.vector}*>({{0}}))"

    def order(self) -> list[int]:
        blocks = range(self.channels // 8)
        return [8 * b + 4 * v + i for v in range(2) for b in blocks for i in range(4)]

    def _widened(self, where: str, *, unsigned: bool = False) -> str:
        loaded = f"{self._half_load}(reinterpret_cast<const {self._half}*>({where}))"
        return f"{self._p}_cvtep{'u' if unsigned else 'i'}8_epi16({loaded})"

    def load_weights(self, taps: Taps) -> Iterator[str]:
        pairs = -(-taps.rows // 2)
        for tap in range(taps.columns):
            for g in range(pairs):
                for v in range(2):
                    at = self.channels * (2 * (tap * pairs + g) + v)
                    loaded = self._widened(advanced("b", at))
                    yield f"const {self.vector} w{tap}_{g}_{v} = {loaded};"

    def load_column(self, column: int, rows: Sequence[str], flip: bool) -> Iterator[str]:
        p, v = self._p, self.vector
        for r, row in enumerate(rows):
            yield f"const {v} r{column}_{r} = {self._widened(row, unsigned=flip)};"
        for g in range(-(-len(rows) // 2)):
            second = f"r{column}_{2 * g + 1}"
            if 2 * g + 1 == len(rows):
                second = f"{p}_setzero_si{self._width}()"
            for index, half in enumerate(("lo", "hi")):
                unpacked = f"{p}_unpack{half}_epi16(r{column}_{2 * g}, {second})"
                yield f"const {v} c{column}_{g}_{index} = {unpacked};"

    def multiply(self, pixel: int, column: int, tap: int, taps: Taps) -> Iterator[str]:
        p = self._p
        for g in range(-(-taps.rows // 2)):
            for v in range(2):
                acc = f"acc{pixel}_{v}"
                product = f"{p}_madd_epi16(c{column}_{g}_{v}, w{tap}_{g}_{v})"
                yield f"{acc} = {p}_add_epi32({acc}, {product});"

    def instructions(self, taps: Taps) -> tuple[float, float]:
        pairs = -(-taps.rows // 2)
        return taps.rows + 2.0 * pairs, 4.0 * pairs

    def stage(
        self, pixel: int, where: str, stage: OutputStage, part: int, int8: Int8
    ) -> tuple[list[str], list[Microkernel]]:
        p = self._p
        rescale = self._make_rescale(self._width, shift_left=stage.shift_left)
        lines, _ = self.rescaled(pixel, 2, rescale, stage, int8)
        unsigned = stage.target is DType.U8
        words = f"{p}_packs_epi32(z0, z1)"
        if self._width == 512:
            positive = f"_mm512_max_epi16({words}, _mm512_setzero_si512())"
            text = (
                f"_mm512_maskz_cvtusepi16_epi8(0xFFFFFFFFU, {positive})"
                if unsigned
                else f"_mm512_maskz_cvtsepi16_epi8(0xFFFFFFFFU, {words})"
            )
        else:
            lines.append(f"const __m256i words = {words};")
            packed = f"_mm256_pack{'us' if unsigned else 's'}_epi16(words, words)"
            text = f"_mm256_castsi256_si128(_mm256_permute4x64_epi64({packed}, 0x08))"
        out = "_mm256" if self._width == 512 else "_mm"
        sign = "epu8" if unsigned else "epi8"
        low, high = stage.bounded
        if low:
            text = f"{out}_max_{sign}({text}, {out}_set1_epi8(static_cast<char>(kLow)))"
        if high:
            text = f"{out}_min_{sign}({text}, {out}_set1_epi8(static_cast<char>(kHigh)))"
        needs = [rescale]
        if part and self._part is not None:
            needs.append(self._part)
            lines.append(f"{self._part.name}<{part}>({where}, {text});")
        elif part:
            lines.append(f"_mm_mask_storeu_epi8({where}, (1U << {part}) - 1U, {text});")
        else:
            pointer = f"reinterpret_cast<{self._half}*>({where})"
            lines.append(f"{out}_storeu_si{self._width // 2}({pointer}, {text});")
        return lines, needs
