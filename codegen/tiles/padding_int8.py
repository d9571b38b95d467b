"""The copy of an 8-bit NHWC image that a padded convolution reads: with a border, or widened."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mdlc.codegen.code import C_TYPES, Microkernel, offset
from mdlc.codegen.isa.int8 import Integers
from mdlc.codegen.threads import parallel
from mdlc.compiler.types import DType

_TEXT = """\
// to[y][c] = x[y - kLeft][c], kFill outside: a row of an NHWC image with a border.
template <int kColumns, int kChannels, int kPitch, int kLeft, int kWidth, int kFill>
inline void {name}(const {source}* x, {target}* to) {{
  constexpr int kLength = kColumns * kChannels;
  if (kLeft > 0) std::fill_n(to, kLeft * kChannels, static_cast<{target}>(kFill));
  to += kLeft * kChannels;
  if (kPitch == kChannels) {{
    std::copy_n(x, kLength, to);
  }} else {{
    for (int j = 0; j < kColumns; ++j) std::copy_n(x + j * kPitch, kChannels, to + j * kChannels);
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
    flip: Integers | None = None

    @property
    def elements(self) -> int:
        """Elements of the copy."""
        return self.padded[0] * self.padded[1] * self.channels

    @property
    def _name(self) -> str:
        return f"pad_row_{self.source.value}{self.target.value}"

    def code(self, x: str) -> str:
        """Statements that write the copy of the image at `x` to `padded`."""
        rows = min(self.size[0], self.padded[0] - self.before[0])
        columns = min(self.size[1], self.padded[1] - self.before[1])
        row = self.padded[1] * self.channels
        below = self.padded[0] - self.before[0] - rows
        numbers = (columns, self.channels, self.pitch, self.before[1], self.padded[1], self.fill)
        source = offset(x, (rows, "row", self.size[1] * self.pitch))
        target = offset("padded", (rows, "row", row), fixed=self.before[0] * row)
        call = f"{self._name}<{', '.join(map(str, numbers))}>({source}, {target});"
        lines = [parallel("row", rows, call)]
        if self.before[0]:
            lines.insert(0, self._filled("padded", self.before[0] * row))
        if below:
            lines.append(self._filled(f"padded + {(self.before[0] + rows) * row}", below * row))
        return "\n".join(lines)

    def _filled(self, where: str, count: int) -> str:
        return f"std::fill_n({where}, {count}, static_cast<{C_TYPES[self.target]}>({self.fill}));"

    @property
    def microkernel(self) -> Microkernel:
        """What the code calls."""
        text = _TEXT.format(
            name=self._name, source=C_TYPES[self.source], target=C_TYPES[self.target]
        )
        if self.flip is None:
            return Microkernel(self._name, text, includes=("algorithm",))
        text = re.sub(r"std::copy_n\((.*?), (k\w+), (.*)\);", r"flip_bytes<\2>(\1, \3);", text)
        return Microkernel(self._name, text, (self._flip_bytes(self.flip),), ("algorithm",))

    def _flip_bytes(self, integers: Integers) -> Microkernel:
        source, target = C_TYPES[self.source], C_TYPES[self.target]
        lanes, spell = integers.byte_lanes, integers.spell
        loaded = integers.flip.format(spell[f"load_bytes_{self.source.value}"].format("x + i"))
        stored = spell[f"put_bytes_{self.source.value}"].format("to + i", loaded)
        text = f"""\
// to[i] = x[i] ^ 0x80 for kCount bytes, {lanes} at a time: i8 as u8, less its zero of -128.
template <int kCount>
inline void flip_bytes(const {source}* x, {target}* to) {{
  int i = 0;
  for (; i <= kCount - {lanes}; i += {lanes}) {stored};
  for (; i < kCount; ++i) to[i] = static_cast<{target}>(x[i] ^ 0x80);
}}
"""
        return Microkernel("flip_bytes", text)
