"""The bordered copy of an NHWC tensor that a padded convolution reads."""

from __future__ import annotations

from dataclasses import dataclass

from mdlc.codegen.kernel import Microkernel

_TEXT = """\
// padded[y][x][c] = x[y - kTop][x - kLeft][c], zero outside: an NHWC image with a border.
template <int kRows, int kColumns, int kChannels, int kWidth, int kPitch, int kTop, int kLeft,
          int kPaddedHeight, int kPaddedWidth>
inline void pad_f32(const float* x, float* padded) {
  constexpr int kRow = kPaddedWidth * kChannels;
  std::memset(padded, 0, sizeof(float) * kTop * kRow);
  float* row = padded + kTop * kRow;
  for (int i = 0; i < kRows; ++i) {
    std::memset(row, 0, sizeof(float) * kLeft * kChannels);
    float* to = row + kLeft * kChannels;
    if (kPitch == kChannels) {
      std::memcpy(to, x, sizeof(float) * kColumns * kChannels);
    } else {
      for (int j = 0; j < kColumns; ++j) {
        std::memcpy(to + j * kChannels, x + j * kPitch, sizeof(float) * kChannels);
      }
    }
    std::memset(to + kColumns * kChannels, 0,
                sizeof(float) * (kPaddedWidth - kLeft - kColumns) * kChannels);
    x += kWidth * kPitch;
    row += kRow;
  }
  std::memset(row, 0, sizeof(float) * (kPaddedHeight - kTop - kRows) * kRow);
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

    @property
    def call(self) -> str:
        """The function with its template arguments; its arguments are (x, padded)."""
        rows = min(self.size[0], self.padded[0] - self.before[0])
        columns = min(self.size[1], self.padded[1] - self.before[1])
        numbers = (rows, columns, self.channels, self.size[1], self.pitch)
        return f"pad_f32<{', '.join(map(str, (*numbers, *self.before, *self.padded)))}>"

    @property
    def microkernel(self) -> Microkernel:
        """The function's definition."""
        return Microkernel("pad_f32", _TEXT, includes=("cstring",))
