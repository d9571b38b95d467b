"""The bordered copy of an NHWC tensor that a padded convolution reads."""

from __future__ import annotations

from dataclasses import dataclass

from mdlc.codegen.kernel import Microkernel
from mdlc.codegen.product import offset
from mdlc.codegen.threads import parallel

_TEXT = """\
// padded[y][c] = x[y - kLeft][c], zero outside: a row of an NHWC image with a border.
template <int kColumns, int kChannels, int kPitch, int kLeft, int kPaddedWidth>
inline void pad_row_f32(const float* x, float* padded) {
  std::memset(padded, 0, sizeof(float) * kLeft * kChannels);
  float* to = padded + kLeft * kChannels;
  if (kPitch == kChannels) {
    std::memcpy(to, x, sizeof(float) * kColumns * kChannels);
  } else {
    for (int j = 0; j < kColumns; ++j) {
      std::memcpy(to + j * kChannels, x + j * kPitch, sizeof(float) * kChannels);
    }
  }
  std::memset(to + kColumns * kChannels, 0,
              sizeof(float) * (kPaddedWidth - kLeft - kColumns) * kChannels);
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
    def floats(self) -> int:
        """Floats of the copy."""
        return self.padded[0] * self.padded[1] * self.channels

    def code(self, x: str) -> str:
        """Statements that write the copy of the image at `x` to `padded`."""
        rows = min(self.size[0], self.padded[0] - self.before[0])
        columns = min(self.size[1], self.padded[1] - self.before[1])
        row = self.padded[1] * self.channels
        below = self.padded[0] - self.before[0] - rows
        numbers = (columns, self.channels, self.pitch, self.before[1], self.padded[1])
        source = offset(x, (rows, "row", self.size[1] * self.pitch))
        target = offset("padded", (rows, "row", row), fixed=self.before[0] * row)
        call = f"pad_row_f32<{', '.join(map(str, numbers))}>({source}, {target});"
        lines = [parallel("row", rows, call)]
        if self.before[0]:
            lines.insert(0, _zeros("padded", self.before[0] * row))
        if below:
            lines.append(_zeros(f"padded + {(self.before[0] + rows) * row}", below * row))
        return "\n".join(lines)

    @property
    def microkernel(self) -> Microkernel:
        """What the code calls."""
        return Microkernel("pad_row_f32", _TEXT, includes=("cstring",))


def _zeros(where: str, count: int) -> str:
    return f"std::memset({where}, 0, sizeof(float) * {count});"
