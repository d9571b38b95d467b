"""Depthwise convolutions of 8-bit integers on AArch64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mdlc.codegen.code import advanced
from mdlc.codegen.isa.int8 import DepthwiseForm, Taps
from mdlc.compiler.types import Array


class DotForm(DepthwiseForm):
    """AArch64: tbl interleaves up to four rows of eight channels, sdot multiplies them."""

    name, channels, vectors = "8", 8, 2
    load = "vld1q_s32({0})"
    rows_together = 4

    @staticmethod
    def _groups(rows: int) -> list[int]:
        """Rows of each dot product."""
        return [min(4, rows - start) for start in range(0, rows, 4)]

    def load_weights(self, taps: Taps) -> Iterator[str]:
        groups = self._groups(taps.rows)
        for rows in sorted(set(groups)):
            for v in range(2):
                index = [
                    16 * r + 4 * v + i if r < rows else 255 for i in range(4) for r in range(4)
                ]
                listed = ", ".join(map(str, index))
                yield f"static const std::uint8_t kIndex{rows}_{v}[16] = {{{listed}}};"
                yield f"const uint8x16_t index{rows}_{v} = vld1q_u8(kIndex{rows}_{v});"
        for tap in range(taps.columns):
            for g in range(len(groups)):
                for v in range(2):
                    at = 32 * (tap * len(groups) + g) + 16 * v
                    yield f"const int8x16_t w{tap}_{g}_{v} = vld1q_s8({advanced('b', at)});"

    def load_column(self, column: int, rows: Sequence[str], flip: bool) -> Iterator[str]:
        for g, count in enumerate(self._groups(len(rows))):
            names = [f"c{column}_{g}_{v}" for v in range(2)]
            yield f"int8x16_t {names[0]}, {names[1]};"
            # In assembly: compilers copy the registers of a table through memory.
            lines, operands = [], []
            for r, row in enumerate(rows[4 * g : 4 * g + count]):
                lines.append(f"ldr d{28 + r}, %[row{r}]")
                operands.append(f'[row{r}] "m"(*reinterpret_cast<const int8x8_t*>({row}))')
            lines += [f"eor v{28 + r}.8b, v{28 + r}.8b, %[sign].8b" for r in range(count) if flip]
            operands += ['[sign] "w"(vdup_n_s8(-128))'] if flip else []
            for v in range(2):
                table = f"v28.16b-v{27 + count}.16b" if count > 1 else "v28.16b"
                lines.append(f"tbl %[c{v}].16b, {{{table}}}, %[i{v}].16b")
                operands.append(f'[i{v}] "w"(index{count}_{v})')
            text = "\n".join(f'"{line}\\n"' for line in lines)
            clobbers = ", ".join(f'"v{28 + r}"' for r in range(count))
            yield (
                f'asm({text}\n: [c0] "=&w"({names[0]}), [c1] "=w"({names[1]})\n'
                f": {', '.join(operands)}\n: {clobbers});"
            )

    def multiply(self, pixel: int, column: int, tap: int, taps: Taps) -> Iterator[str]:
        for g in range(len(self._groups(taps.rows))):
            for v in range(2):
                acc = f"acc{pixel}_{v}"
                yield f"{acc} = vdotq_s32({acc}, c{column}_{g}_{v}, w{tap}_{g}_{v});"

    def instructions(self, taps: Taps) -> tuple[float, float]:
        groups = len(self._groups(taps.rows))
        return taps.rows + 2.0 * groups, 2.0 * groups


class MultiplyForm(DepthwiseForm):
    """Plain NEON: eight channels widened to 16 bits, each tap multiplied and added in 32."""

    name, channels, vectors = "8", 8, 2
    load = "vld1q_s32({0})"

    def pack(self, weights: Array) -> Array:
        channels, rows, columns = weights.shape
        padded = np.zeros((8, rows, columns), np.int8)
        padded[:channels] = weights
        return np.ascontiguousarray(padded.transpose(1, 2, 0)).reshape(-1)  # [row][column][channel]

    def load_weights(self, taps: Taps) -> Iterator[str]:
        for index in range(taps.rows * taps.columns):
            r, tap = divmod(index, taps.columns)
            yield f"const int16x8_t w{r}_{tap} = vmovl_s8(vld1_s8({advanced('b', 8 * index)}));"

    def load_column(self, column: int, rows: Sequence[str], flip: bool) -> Iterator[str]:
        for r, row in enumerate(rows):
            value = f"vld1_s8(reinterpret_cast<const std::int8_t*>({row}))"
            value = f"veor_s8({value}, vdup_n_s8(-128))" if flip else value
            yield f"const int16x8_t c{column}_{r} = vmovl_s8({value});"

    def multiply(self, pixel: int, column: int, tap: int, taps: Taps) -> Iterator[str]:
        for r in range(taps.rows):
            x, w, low, high = f"c{column}_{r}", f"w{r}_{tap}", f"acc{pixel}_0", f"acc{pixel}_1"
            yield f"{low} = vmlal_s16({low}, vget_low_s16({x}), vget_low_s16({w}));"
            yield f"{high} = vmlal_high_s16({high}, {x}, {w});"

    def instructions(self, taps: Taps) -> tuple[float, float]:
        return 2.0 * taps.rows, 2.0 * taps.rows
