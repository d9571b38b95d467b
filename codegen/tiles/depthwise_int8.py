"""Register tiles of depthwise convolutions of 8-bit integers.

A tile computes neighbouring output pixels of one row for a block of channels. The filter rows
above one another are the elements of a dot product: for every input column, the bytes of its
rows are interleaved once, and each of the pixels whose window has the column multiplies them by
its own column of weights. Rows and columns outside the image are read from a row that holds the
zero point, so that every tile has all taps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdlc.codegen.code import C_TYPES, Microkernel, advanced
from mdlc.codegen.isa.base import KernelIsa, int8_of
from mdlc.codegen.isa.int8 import DepthwiseForm, Taps, pack_fields
from mdlc.codegen.isa.int8_result import OutputStage
from mdlc.compiler.types import Array, DType
from mdlc.compiler.words import counted


@dataclass(frozen=True)
class DepthwiseTile:
    """Neighbouring output pixels of one row.

    Attributes:
        left, right: input columns of the tile that lie outside the image.
        part: channels of the one block that is computed; 0: a loop over whole blocks.
    """

    form: DepthwiseForm
    taps: Taps
    pixels: int
    left: int
    right: int
    part: int
    stage: OutputStage

    @property
    def span(self) -> int:
        """Input columns that the tile covers."""
        taps = self.taps
        return (self.pixels - 1) * taps.stride + (taps.columns - 1) * taps.dilation + 1

    def _outside(self, column: int) -> str:
        """Whether an input column lies outside the image, in terms of kLeft and kRight; "" if it
        never does.
        """
        right = self.span - 1 - column
        tests = [f"kLeft > {column}"] if column < self._reach else []
        tests += [f"kRight > {right}"] if right < self._reach else []
        return " || ".join(tests)

    @property
    def _reach(self) -> int:
        """Columns from an end of the tile on that may lie outside."""
        return max(self.left, self.right, (self.taps.columns - 1) * self.taps.dilation)

    def uses(self) -> dict[int, list[tuple[int, int]]]:
        """For each input column, the (pixel, tap) pairs that read it."""
        found: dict[int, list[tuple[int, int]]] = {}
        for pixel in range(self.pixels):
            for tap in range(self.taps.columns):
                column = pixel * self.taps.stride + tap * self.taps.dilation
                found.setdefault(column, []).append((pixel, tap))
        return dict(sorted(found.items()))

    def name(self, isa: KernelIsa) -> str:
        """Such as qdwconv3x3s2_i8i8_7x8_neon."""
        taps = self.taps
        stem = f"qdwconv{taps.rows}x{taps.columns}"
        stem += f"s{taps.stride}" if taps.stride > 1 else ""
        stem += f"d{taps.dilation}" if taps.dilation > 1 else ""
        stem += f"{self.stage.suffix}_{self.pixels}x{self.form.name}"
        usual = (self.taps.columns - 1) * self.taps.dilation
        stem += f"_reach{self._reach}" if self._reach > usual else ""
        stem += f"_part{self.part}" if self.part else ""
        return f"{stem}_{isa.suffix}"

    def parameters(self) -> list[str]:
        """Names of the compile-time integers, in order."""
        names = ["kLeft", "kRight"] if self._reach else []
        names += [] if self.part else ["kBlocks"]
        names += ["kPixelStep"] if self.span > 1 else []
        names += ["kOutStep"] if self.pixels > 1 else []
        return names + list(self.stage.parameters)

    def microkernel(self, isa: KernelIsa) -> Microkernel:
        """The C++ of the tile."""
        form, stage, int8 = self.form, self.stage, int8_of(isa)
        fields = len(int8.used_fields(stage))
        source = C_TYPES[stage.source]
        rows = ", ".join(f"const {source}* x{r}" for r in range(self.taps.rows))
        outside = f", const {source}* outside" if self._reach else ""
        lines: list[str] = [*form.load_weights(self.taps)]
        lines += form.load_scale(stage, self.part, int8)
        needs: list[Microkernel] = []
        uses = self.uses()
        first = {min(c for c, pairs in uses.items() if any(q == p for q, _ in pairs)): p
                 for p in range(self.pixels)}  # fmt: skip
        last = {max(c for c, pairs in uses.items() if any(q == p for q, _ in pairs)): p
                for p in range(self.pixels)}  # fmt: skip
        flip = int8.flips(stage.source) or (int8.widens and stage.source is DType.U8)
        for column, pairs in uses.items():
            addresses = [advanced(f"x{r}", (column, "kPixelStep")) for r in range(self.taps.rows)]
            if test := self._outside(column):
                addresses = [f"({test} ? outside : {inside})" for inside in addresses]
            lines += form.load_column(column, addresses, flip)
            if column in first:
                pixel = first[column]
                lines += [f"auto acc{pixel}_{v} = bias{v};" for v in range(form.vectors)]
            for pixel, tap in pairs:
                lines += form.multiply(pixel, column, tap, self.taps)
            if column in last:
                pixel = last[column]
                where = advanced("y", (pixel, "kOutStep"))
                stored, helpers = form.stage(pixel, where, stage, self.part, int8)
                lines += ["{", *stored, "}"]
                needs += helpers
        step = [f"x{r} += {form.channels};" for r in range(self.taps.rows)]
        step += [f"b += {self.weight_bytes};", f"scale += {fields * form.channels};"]
        step += [f"y += {form.channels};"]
        body = lines if self.part else ["for (int c = 0; c < kBlocks; ++c) {", *lines, *step, "}"]
        formula = stage.formula("bias[c] + sum(x[row][p * stride + k][c] * b[row][k][c])")
        text = (
            f"// y[p][c] = {formula}\n"
            f"// Tile: {counted(self.pixels, 'pixel')} of a row, "
            f"{counted(form.channels, 'channel')} at a time; xR: the rows of the window, "
            "at its first column"
            f"{'; kLeft, kRight: columns outside the image' if self._reach else ''}.\n"
            f"template <{', '.join(f'int {p}' for p in self.parameters())}>\n"
            f"inline void {self.name(isa)}({rows}{outside}, const std::int8_t* b, "
            f"const std::int32_t* scale, {C_TYPES[stage.target]}* y) {{\n"
            + "\n".join(body)
            + "\n}\n"
        )
        return Microkernel(self.name(isa), text, tuple(dict.fromkeys(needs)))

    @property
    def weight_bytes(self) -> int:
        """Bytes of a block's packed weights."""
        return self.form.pack(
            np.zeros((self.form.channels, self.taps.rows, self.taps.columns), np.int8)
        ).size


def pack_scale(
    form: DepthwiseForm, fields: Sequence[str], values: Sequence[Array], zero: int
) -> Array:
    """Per-channel numbers (bias, multiplier, shift) of one block in the order of its lanes."""
    order = np.array(form.order())
    padded = [np.concatenate([v, np.full(form.channels - v.size, v[-1])])[order] for v in values]
    bias, multiplier, shift = padded
    return pack_fields(fields, bias, multiplier, shift, zero, form.channels // form.vectors)
