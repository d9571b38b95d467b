"""The bordered copy of an NHWC tensor that a padded convolution reads."""

from __future__ import annotations

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


def pad_microkernel() -> Microkernel:
    """pad_f32<rows, columns, channels, width, pitch, top, left, padded height, padded width>."""
    return Microkernel("pad_f32", _TEXT, includes=("cstring",))
