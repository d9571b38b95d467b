"""Register tiles of depthwise convolutions of 8-bit integers.

A tile computes neighbouring output pixels of one row for a block of channels. The filter rows
above one another are the elements of a dot product: for every input column, the bytes of its
rows are interleaved once, and each of the pixels whose window has the column multiplies them by
its own column of weights. Rows and columns outside the image are read from a row that holds the
zero point, so that every tile has all taps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mdlc.codegen.integers import Finish, Integers, pack_fields
from mdlc.codegen.isa import Isa
from mdlc.codegen.kernel import Microkernel
from mdlc.codegen.quantized_product import integers_of
from mdlc.codegen.strides import C_TYPES
from mdlc.compiler.types import Array, DType


@dataclass(frozen=True)
class Taps:
    """The window of a depthwise convolution: rows and columns of the filter, across steps."""

    rows: int
    columns: int
    stride: int
    dilation: int


class DepthwiseForm(ABC):
    """How an ISA multiplies the taps of a block of channels.

    Attributes:
        name: in names of functions. channels: of the block. vectors: accumulators of a pixel.
        load: a vector of i32, as a format string.
        keeps_scale: whether what rescaling needs stays in registers.
    """

    name: str
    load: str
    keeps_scale: bool = True
    channels: int
    vectors: int

    @abstractmethod
    def order(self) -> list[int]:
        """Channel of every lane, vector by vector."""

    @abstractmethod
    def pack(self, weights: Array) -> Array:
        """Weights [channels, rows, columns] (int8) as the tile reads them."""

    @abstractmethod
    def load_weights(self, taps: Taps) -> Iterator[str]:
        """Statements before the pixels: weights and other constants."""

    @abstractmethod
    def load_column(self, column: int, rows: Sequence[str], flip: bool) -> Iterator[str]:
        """Statements that load one input column from its rows' addresses.

        `flip`: activations are of the type that the form does not multiply as it is.
        """

    @abstractmethod
    def multiply(self, pixel: int, column: int, tap: int, taps: Taps) -> Iterator[str]:
        """Statements that add an input column times a column of weights to a pixel's sums."""

    @abstractmethod
    def instructions(self, taps: Taps) -> tuple[float, float]:
        """Instructions of loading a column, and of multiplying it."""

    def load_scale(self, finish: Finish, part: int, integers: Integers) -> Iterator[str]:
        """Statements before the pixels that load what rescaling needs."""
        fields = integers.used_fields(finish)
        lanes = self.channels // self.vectors
        for v in range(self.vectors):
            for index, name in enumerate(fields):
                used = not part or v * lanes < part
                if name == "bias" or (self.keeps_scale and used):
                    offset = (v * len(fields) + index) * lanes
                    where = f"scale + {offset}" if offset else "scale"
                    yield f"const auto {name}{v} = {self.load.format(where)};"

    @abstractmethod
    def finish(
        self, pixel: int, where: str, finish: Finish, part: int, integers: Integers
    ) -> tuple[list[str], list[Microkernel]]:
        """Statements that rescale and store a pixel's sums; `part`: of the channels (0: all)."""


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
    finish: Finish

    @property
    def span(self) -> int:
        """Input columns that the tile covers."""
        taps = self.taps
        return (self.pixels - 1) * taps.stride + (taps.columns - 1) * taps.dilation + 1

    def uses(self) -> dict[int, list[tuple[int, int]]]:
        """For each input column, the (pixel, tap) pairs that read it."""
        found: dict[int, list[tuple[int, int]]] = {}
        for pixel in range(self.pixels):
            for tap in range(self.taps.columns):
                column = pixel * self.taps.stride + tap * self.taps.dilation
                found.setdefault(column, []).append((pixel, tap))
        return dict(sorted(found.items()))

    def name(self, isa: Isa) -> str:
        """Such as qdwconv3x3s2_i8i8_7_left1_neon."""
        taps = self.taps
        stem = f"qdwconv{taps.rows}x{taps.columns}"
        stem += f"s{taps.stride}" if taps.stride > 1 else ""
        stem += f"d{taps.dilation}" if taps.dilation > 1 else ""
        stem += f"{self.finish.suffix}_{self.pixels}x{self.form.name}"
        stem += f"_left{self.left}" if self.left else ""
        stem += f"_right{self.right}" if self.right else ""
        stem += f"_part{self.part}" if self.part else ""
        return f"{stem}_{isa.suffix}"

    def parameters(self) -> list[str]:
        """Names of the compile-time integers, in order."""
        names = [] if self.part else ["kBlocks"]
        names += ["kPixelStep"] if self.span > 1 else []
        names += ["kOutStep"] if self.pixels > 1 else []
        return names + list(self.finish.parameters)

    def microkernel(self, isa: Isa) -> Microkernel:
        """The C++ of the tile."""
        form, finish, integers = self.form, self.finish, integers_of(isa)
        fields = len(integers.used_fields(finish))
        source = C_TYPES[finish.source]
        rows = ", ".join(f"const {source}* x{r}" for r in range(self.taps.rows))
        outside = f", const {source}* outside" if self.left or self.right else ""
        lines: list[str] = [*form.load_weights(self.taps)]
        lines += form.load_scale(finish, self.part, integers)
        needs: list[Microkernel] = []
        uses = self.uses()
        first = {min(c for c, pairs in uses.items() if any(q == p for q, _ in pairs)): p
                 for p in range(self.pixels)}  # fmt: skip
        last = {max(c for c, pairs in uses.items() if any(q == p for q, _ in pairs)): p
                for p in range(self.pixels)}  # fmt: skip
        flip = integers.flips(finish.source) or (integers.widens and finish.source is DType.U8)
        for column, pairs in uses.items():
            out = column < self.left or column >= self.span - self.right
            addresses = [
                "outside" if out else f"x{r} + {column} * kPixelStep" if column else f"x{r}"
                for r in range(self.taps.rows)
            ]
            lines += form.load_column(column, addresses, flip)
            if column in first:
                pixel = first[column]
                lines += [f"auto acc{pixel}_{v} = bias{v};" for v in range(form.vectors)]
            for pixel, tap in pairs:
                lines += form.multiply(pixel, column, tap, self.taps)
            if column in last:
                pixel = last[column]
                where = f"y + {pixel} * kOutStep" if pixel else "y"
                stored, helpers = form.finish(pixel, where, finish, self.part, integers)
                lines += ["{", *stored, "}"]
                needs += helpers
        step = [f"x{r} += {form.channels};" for r in range(self.taps.rows)]
        step += [f"b += {self.weight_bytes};", f"scale += {fields * form.channels};"]
        step += [f"y += {form.channels};"]
        body = lines if self.part else ["for (int c = 0; c < kBlocks; ++c) {", *lines, *step, "}"]
        formula = finish.formula("bias[c] + sum(x[row][p * stride + k][c] * b[row][k][c])")
        text = (
            f"// y[p][c] = {formula}\n"
            f"// Tile: {self.pixels} pixels of a row, {form.channels} channels at a time; xR: the "
            f"rows of the window, at its first column.\n"
            f"template <{', '.join(f'int {p}' for p in self.parameters())}>\n"
            f"inline void {self.name(isa)}({rows}{outside}, const std::int8_t* b, "
            f"const std::int32_t* scale, {C_TYPES[finish.target]}* y) {{\n"
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
