"""Depthwise convolutions of 8-bit integers on WebAssembly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mdlc.codegen.code import advanced
from mdlc.codegen.isa.int8 import DepthwiseForm, Taps

# Orders of shuffles that interleave the lower or the upper halves of vectors of i16.
INTERLEAVED = ("0, 8, 1, 9, 2, 10, 3, 11", "4, 12, 5, 13, 6, 14, 7, 15")


class PairForm(DepthwiseForm):
    """Eight channels widened to 16 bits, rows in pairs, which a dot product multiplies."""

    name, channels, vectors = "8", 8, 2
    load = "wasm_v128_load({0})"
    keeps_scale, vector, rows_together = False, "v128_t", 2

    def load_weights(self, taps: Taps) -> Iterator[str]:
        pairs = -(-taps.rows // 2)
        for tap in range(taps.columns):
            for g in range(pairs):
                for v in range(2):
                    at = advanced("b", 8 * (2 * (tap * pairs + g) + v))
                    yield f"const v128_t w{tap}_{g}_{v} = wasm_i16x8_load8x8({at});"

    def load_column(self, column: int, rows: Sequence[str], flip: bool) -> Iterator[str]:
        load = "wasm_u16x8_load8x8" if flip else "wasm_i16x8_load8x8"
        for r, row in enumerate(rows):
            yield f"const v128_t r{column}_{r} = {load}({row});"
        for g in range(-(-len(rows) // 2)):
            second = f"r{column}_{2 * g + 1}"
            if 2 * g + 1 == len(rows):
                second = "wasm_i16x8_const_splat(0)"
            for v, order in enumerate(INTERLEAVED):
                pairs = f"wasm_i16x8_shuffle(r{column}_{2 * g}, {second}, {order})"
                yield f"const v128_t c{column}_{g}_{v} = {pairs};"

    def multiply(self, pixel: int, column: int, tap: int, taps: Taps) -> Iterator[str]:
        for g in range(-(-taps.rows // 2)):
            for v in range(2):
                acc = f"acc{pixel}_{v}"
                product = f"wasm_i32x4_dot_i16x8(c{column}_{g}_{v}, w{tap}_{g}_{v})"
                yield f"{acc} = wasm_i32x4_add({acc}, {product});"

    def instructions(self, taps: Taps) -> tuple[float, float]:
        pairs = -(-taps.rows // 2)
        return taps.rows + 2.0 * pairs, 4.0 * pairs
