"""The copy of an 8-bit NHWC image that a padded convolution reads: with a border, or widened."""

from __future__ import annotations

from dataclasses import dataclass

from mdlc.codegen.code import C_TYPES, Body, Call, Microkernel, Pointer, body, offset
from mdlc.codegen.isa.int8 import Int8
from mdlc.codegen.threads import loop
from mdlc.compiler.types import DType

_TEXT = """\
// to[y][c] = x[y - kLeft][c], kFill outside: a row of an NHWC image with a border.
template <int kColumns, int kChannels, int kPitch, int kLeft, int kWidth, int kFill>
inline void {name}(const {source}* x, {target}* to) {{
  constexpr int kLength = kColumns * kChannels;
  if (kLeft > 0) std::fill_n(to, kLeft * kChannels, static_cast<{target}>(kFill));
  to += kLeft * kChannels;
  if (kPitch == kChannels) {{
    {whole};
  }} else {{
    for (int j = 0; j < kColumns; ++j) {pixel};
  }}
  constexpr int kRight = (kWidth - kLeft - kColumns) * kChannels;
  if (kRight > 0) std::fill_n(to + kLength, kRight, static_cast<{target}>(kFill));
}}
"""


@dataclass(frozen=True)
class ByteBorder:
    """A copy of one image with a border of one value.

    Attributes:
        size: [height, width] of the image; channels, pitch: as in View.
        before: rows above and columns left of the image.
        padded: [height, width] of the copy; what lies beyond it is cut off.
        fill: what the border holds.
        source, target: element types; they differ where the copy is widened or flipped.
        flip: how to flip every byte (x ^ 0x80), or None. `fill` is flipped already.
    """

    size: tuple[int, int]
    channels: int
    pitch: int
    before: tuple[int, int]
    padded: tuple[int, int]
    fill: int
    source: DType
    target: DType
    flip: Int8 | None = None

    @property
    def elements(self) -> int:
        """Elements of the copy."""
        return self.padded[0] * self.padded[1] * self.channels

    @property
    def _name(self) -> str:
        return f"{'flip' if self.flip else 'pad'}_row_{self.source.value}{self.target.value}"

    def code(self, x: Pointer) -> Body:
        """Statements that write the copy of the image at `x` to `padded`."""
        rows = min(self.size[0], self.padded[0] - self.before[0])
        columns = min(self.size[1], self.padded[1] - self.before[1])
        row = self.padded[1] * self.channels
        below = self.padded[0] - self.before[0] - rows
        numbers = (columns, self.channels, self.pitch, self.before[1], self.padded[1], self.fill)
        source = x.plus("row", self.size[1] * self.pitch) if rows > 1 else x
        target = offset("padded", (rows, "row", row), fixed=self.before[0] * row)
        call = Call(self._microkernel, (source, target), numbers)
        above = [self._filled("padded", self.before[0] * row)] if self.before[0] else []
        under = f"padded + {(self.before[0] + rows) * row}"
        rest = [self._filled(under, below * row)] if below else []
        return body(above, loop("row", rows, (call,), shared=True), rest)

    def _filled(self, where: str, count: int) -> str:
        return f"std::fill_n({where}, {count}, static_cast<{C_TYPES[self.target]}>({self.fill}));"

    @property
    def _microkernel(self) -> Microkernel:
        flip = self._flip_bytes(self.flip) if self.flip else None

        def copied(of: str, count: str, to: str) -> str:
            return (
                f"{flip.name}<{count}>({of}, {to})" if flip else f"std::copy_n({of}, {count}, {to})"
            )

        text = _TEXT.format(
            name=self._name,
            source=C_TYPES[self.source],
            target=C_TYPES[self.target],
            whole=copied("x", "kLength", "to"),
            pixel=copied("x + j * kPitch", "kChannels", "to + j * kChannels"),
        )
        return Microkernel(self._name, text, (flip,) if flip else (), ("algorithm",))

    def _flip_bytes(self, int8: Int8) -> Microkernel:
        source, target = C_TYPES[self.source], C_TYPES[self.target]
        lanes, spell = int8.byte_lanes, int8.spell
        loaded = int8.flip.format(spell[f"load_bytes_{self.source.value}"].format("x + i"))
        stored = spell[f"put_bytes_{self.source.value}"].format("to + i", loaded)
        name = f"flip_{self.source.value}{self.target.value}"
        text = f"""\
// to[i] = x[i] ^ 0x80 for kCount bytes, {lanes} at a time: i8 as u8, less its zero of -128.
template <int kCount>
inline void {name}(const {source}* x, {target}* to) {{
  int i = 0;
  for (; i <= kCount - {lanes}; i += {lanes}) {stored};
  for (; i < kCount; ++i) to[i] = static_cast<{target}>(x[i] ^ 0x80);
}}
"""
        return Microkernel(name, text)
