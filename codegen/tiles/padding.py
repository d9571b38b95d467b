"""The bordered copy of an NHWC tensor that a padded convolution reads."""

from __future__ import annotations

from dataclasses import dataclass

from mdlc.codegen.code import Body, Call, Microkernel, Pointer, Statement, Value, body, offset
from mdlc.codegen.isa.dialect import Dialect
from mdlc.codegen.templates import render
from mdlc.codegen.threads import loop
from mdlc.codegen.tiles.formula import literal
from mdlc.codegen.tiles.uint8_input import Unpack


@dataclass(frozen=True)
class Border:
    """A border of zeros around one image.

    Attributes:
        size: [height, width] of the image; channels, pitch: as in View.
        before: rows above and columns left of the image.
        padded: [height, width] of the copy; what lies beyond it is cut off.
        unpack: how the image's bytes become the copy's elements; None: it has elements.
    """

    size: tuple[int, int]
    channels: int
    pitch: int
    before: tuple[int, int]
    padded: tuple[int, int]
    unpack: Unpack | None = None

    @property
    def elements(self) -> int:
        """Elements of the copy."""
        return self.padded[0] * self.padded[1] * self.channels

    def code(self, x: Pointer, isa: Dialect) -> Body:
        """Statements that write the copy of the image at `x` to `padded`."""
        rows = min(self.size[0], self.padded[0] - self.before[0])
        columns = min(self.size[1], self.padded[1] - self.before[1])
        row = self.padded[1] * self.channels
        below = self.padded[0] - self.before[0] - rows
        numbers = [columns, self.channels, self.pitch, self.before[1], self.padded[1]]
        arguments, table = _unpacked(self.unpack, numbers, isa)
        source = x.plus("row", self.size[1] * self.pitch) if rows > 1 else x
        target = offset("padded", (rows, "row", row), fixed=self.before[0] * row)
        microkernel = _row("pad_row", self.unpack, isa)
        call = Call(microkernel, (source, *arguments, target), tuple(numbers))
        above = [_zeros("padded", self.before[0] * row, isa)] if self.before[0] else []
        under = f"padded + {(self.before[0] + rows) * row}"
        rest = [_zeros(under, below * row, isa)] if below else []
        return body(above, table, loop("row", rows, (call,), shared=True), rest)


@dataclass(frozen=True)
class FoldedBorder:
    """A border of zeros around one image whose phases become channels.

    Attributes:
        size, channels, pitch, before, unpack: as in Border.
        padded: [rows, columns] of the copy, each pixel holding stride x stride pixels of the image.
        stride: phases of an axis; folded: elements of a pixel of the copy.
    """

    size: tuple[int, int]
    channels: int
    pitch: int
    before: tuple[int, int]
    padded: tuple[int, int]
    stride: int
    folded: int
    unpack: Unpack | None = None

    @property
    def elements(self) -> int:
        """Elements of the copy."""
        return self.padded[0] * self.padded[1] * self.folded

    def code(self, x: Pointer, isa: Dialect) -> Body:
        """Statements that write the copy of the image at `x` to `padded`."""
        height, width = self.size
        columns = min(width, self.padded[1] * self.stride - self.before[1])
        numbers = [
            columns, self.channels, self.pitch, self.before[1], self.stride, self.padded[1],
            self.folded,
        ]  # fmt: skip
        arguments, table = _unpacked(self.unpack, numbers, isa)
        pointers = []
        for phase in range(self.stride):
            down = phase - self.before[0]
            row = f"row * {self.stride}" if self.stride > 1 else "row"
            row += f" + {down}" if down > 0 else f" - {-down}" if down else ""
            inside = f"{row} < {height}" if down >= 0 else f"{row} >= 0 && {row} < {height}"
            pointers.append(f"{inside} ? {x} + ({row}) * {width * self.pitch} : nullptr")
        element = "std::uint8_t" if self.unpack else isa.element
        rows = self.padded[0]
        target = offset("padded", (rows, "row", self.padded[1] * self.folded))
        call = Call(
            _row("fold_row", self.unpack, isa), ("rows", *arguments, target), tuple(numbers)
        )
        copy: list[Statement] = [f"const {element}* rows[] = {{{', '.join(pointers)}}};", call]
        # A single row would be named by its number.
        first = ["constexpr int row = 0;"] if rows == 1 else []
        return body(first, table, loop("row", rows, tuple(copy), shared=True))


def _unpacked(
    unpack: Unpack | None, numbers: list[int], isa: Dialect
) -> tuple[list[Value], list[str]]:
    """What unpacking adds to a call's arguments and, in place, numbers, and the table it reads."""
    pattern = unpack.pattern(isa) if unpack else []
    if not pattern:
        return [], []
    numbers.append(len(pattern))
    values = ", ".join(map(literal, pattern))
    return ["shift"], [f"static const float shift[] = {{{values}}};"]


def _zeros(where: str, count: int, isa: Dialect) -> str:
    return f"std::memset({where}, 0, sizeof({isa.element}) * {count});"


def _row(what: str, unpack: Unpack | None, isa: Dialect) -> Microkernel:
    """The copy of one row: pad_row or fold_row."""
    name = f"{what}_{isa.kind}" if unpack is None else unpack.name(what, isa)
    text = render(
        f"cpp/kernels/{what}.j2",
        name=name,
        isa=isa,
        element=isa.element,
        source="std::uint8_t" if unpack else isa.element,
        unpack=unpack,
        shift=unpack is not None and bool(unpack.shift),
    )
    return Microkernel(name, text, includes=("cstring",))
