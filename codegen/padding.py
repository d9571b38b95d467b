"""The bordered copy of an NHWC tensor that a padded convolution reads."""

from __future__ import annotations

from dataclasses import dataclass

from mdlc.codegen.isa import Isa
from mdlc.codegen.kernel import Microkernel
from mdlc.codegen.product import offset
from mdlc.codegen.threads import parallel

_TEXT = """\
// padded[y][c] = x[y - kLeft][c], zero outside: a row of an NHWC image with a border.
template <int kColumns, int kChannels, int kPitch, int kLeft, int kPaddedWidth>
inline void pad_row_@k(const @e* x, @e* padded) {
  std::memset(padded, 0, sizeof(@e) * kLeft * kChannels);
  @e* to = padded + kLeft * kChannels;
  if (kPitch == kChannels) {
    std::memcpy(to, x, sizeof(@e) * kColumns * kChannels);
  } else {
    for (int j = 0; j < kColumns; ++j) {
      std::memcpy(to + j * kChannels, x + j * kPitch, sizeof(@e) * kChannels);
    }
  }
  std::memset(to + kColumns * kChannels, 0,
              sizeof(@e) * (kPaddedWidth - kLeft - kColumns) * kChannels);
}
"""


@dataclass(frozen=True)
class Border:
    """A border of zeros around one image.

    Attributes:
        size: [height, width] of the image; channels, pitch: as in View.
        before: rows above and columns left of the image.
        padded: [height, width] of the copy; what lies beyond it is cut off.
    """

    size: tuple[int, int]
    channels: int
    pitch: int
    before: tuple[int, int]
    padded: tuple[int, int]

    @property
    def elements(self) -> int:
        """Elements of the copy."""
        return self.padded[0] * self.padded[1] * self.channels

    def code(self, x: str, isa: Isa) -> str:
        """Statements that write the copy of the image at `x` to `padded`."""
        rows = min(self.size[0], self.padded[0] - self.before[0])
        columns = min(self.size[1], self.padded[1] - self.before[1])
        row = self.padded[1] * self.channels
        below = self.padded[0] - self.before[0] - rows
        numbers = (columns, self.channels, self.pitch, self.before[1], self.padded[1])
        source = offset(x, (rows, "row", self.size[1] * self.pitch))
        target = offset("padded", (rows, "row", row), fixed=self.before[0] * row)
        call = f"pad_row_{isa.kind}<{', '.join(map(str, numbers))}>({source}, {target});"
        lines = [parallel("row", rows, call)]
        if self.before[0]:
            lines.insert(0, _zeros("padded", self.before[0] * row, isa))
        if below:
            lines.append(_zeros(f"padded + {(self.before[0] + rows) * row}", below * row, isa))
        return "\n".join(lines)

    def microkernel(self, isa: Isa) -> Microkernel:
        """What the code calls."""
        name = f"pad_row_{isa.kind}"
        return Microkernel(name, _spelled(_TEXT, isa), includes=("cstring",))


_FOLDED_TEXT = """\
// folded[(py * kStride + px) * kChannels + c] of pixel X = x[py][X * kStride + px - kLeft][c]: a
// row of an image whose kStride^2 phases are channels, from rows x[py] (null: zeros). A pixel takes
// kFolded elements, zero-filled.
template <int kColumns, int kChannels, int kPitch, int kLeft, int kStride, int kPixels, int kFolded>
inline void fold_row_@k(const @e* const* x, @e* folded) {
  constexpr int kShift = kLeft % kStride == 0 ? 0 : kStride - kLeft % kStride;
  constexpr int kPairs = (kColumns - kShift) / kStride;
  std::memset(folded, 0, sizeof(@e) * kPixels * kFolded);
  for (int py = 0; py < kStride; ++py) {
    if (x[py] == nullptr) continue;
    @e* to = folded + py * kStride * kChannels;
    for (int i = 0; i < kShift; ++i) {
      std::memcpy(to + (i + kLeft) / kStride * kFolded + (i + kLeft) % kStride * kChannels,
                  x[py] + i * kPitch, sizeof(@e) * kChannels);
    }
    @e* pair = to + (kShift + kLeft) / kStride * kFolded;
    const @e* from = x[py] + kShift * kPitch;
    for (int i = 0; i < kPairs; ++i) {
      for (int px = 0; px < kStride; ++px) {
        std::memcpy(pair + i * kFolded + px * kChannels, from + (i * kStride + px) * kPitch,
                    sizeof(@e) * kChannels);
      }
    }
    for (int i = kShift + kPairs * kStride; i < kColumns; ++i) {
      std::memcpy(to + (i + kLeft) / kStride * kFolded + (i + kLeft) % kStride * kChannels,
                  x[py] + i * kPitch, sizeof(@e) * kChannels);
    }
  }
}
"""


@dataclass(frozen=True)
class FoldedBorder:
    """A border of zeros around one image whose phases become channels.

    Attributes:
        size, channels, pitch, before: as in Border.
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

    @property
    def elements(self) -> int:
        """Elements of the copy."""
        return self.padded[0] * self.padded[1] * self.folded

    def code(self, x: str, isa: Isa) -> str:
        """Statements that write the copy of the image at `x` to `padded`."""
        height, width = self.size
        columns = min(width, self.padded[1] * self.stride - self.before[1])
        numbers = (
            columns, self.channels, self.pitch, self.before[1], self.stride, self.padded[1],
            self.folded,
        )  # fmt: skip
        pointers = []
        for phase in range(self.stride):
            down = phase - self.before[0]
            row = f"row * {self.stride}" if self.stride > 1 else "row"
            row += f" + {down}" if down > 0 else f" - {-down}" if down else ""
            inside = f"{row} < {height}" if down >= 0 else f"{row} >= 0 && {row} < {height}"
            pointers.append(f"{inside} ? {x} + ({row}) * {width * self.pitch} : nullptr")
        body = (
            f"const {isa.element}* rows[] = {{{', '.join(pointers)}}};\n"
            f"fold_row_{isa.kind}<{', '.join(map(str, numbers))}>"
            f"(rows, padded + row * {self.padded[1] * self.folded});"
        )
        return parallel("row", self.padded[0], body)

    def microkernel(self, isa: Isa) -> Microkernel:
        """What the code calls."""
        name = f"fold_row_{isa.kind}"
        return Microkernel(name, _spelled(_FOLDED_TEXT, isa), includes=("cstring",))


def _zeros(where: str, count: int, isa: Isa) -> str:
    return f"std::memset({where}, 0, sizeof({isa.element}) * {count});"


def _spelled(text: str, isa: Isa) -> str:
    """The text for the element type of an ISA."""
    return text.replace("@e", isa.element).replace("@k", isa.kind)
