"""Half precision in plain C++17, for inputs and outputs of targets without half arithmetic."""

from __future__ import annotations

from mdlc.codegen.code import Microkernel

_FROM = """\
// The value of a half-precision number (IEEE 754 binary16) given as its bits.
inline float HalfToFloat(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000U) << 16U;
  const std::uint32_t rest = half & 0x7FFFU;
  std::uint32_t bits = sign | (rest << 13U);
  if (rest >= 0x7C00U) {
    bits |= 0x7F800000U;
  } else if (rest >= 0x0400U) {
    bits += 112U << 23U;
  } else {
    // Subnormal: the mantissa counts units of 2^-24.
    const float magnitude = static_cast<float>(rest) * 0x1p-24F;
    std::memcpy(&bits, &magnitude, sizeof(bits));
    bits |= sign;
  }
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
"""
_TO = """\
// The bits of the half-precision number nearest to a value, ties to even.
inline std::uint16_t FloatToHalf(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const std::uint32_t sign = (bits >> 16U) & 0x8000U;
  bits &= 0x7FFFFFFFU;
  std::uint32_t half;
  if (bits > 0x7F800000U) {
    half = 0x7E00U;
  } else if (bits >= 0x477FF000U) {
    half = 0x7C00U;
  } else if (bits >= 0x38800000U) {
    half = (bits - (112U << 23U) + 0x0FFFU + ((bits >> 13U) & 1U)) >> 13U;
  } else {
    // Subnormal: adding 0.5 moves units of 2^-24 to the end of the mantissa, rounded.
    float magnitude;
    std::memcpy(&magnitude, &bits, sizeof(magnitude));
    magnitude += 0.5F;
    std::memcpy(&bits, &magnitude, sizeof(bits));
    half = bits - 0x3F000000U;
  }
  return static_cast<std::uint16_t>(sign | half);
}
"""


def from_half() -> Microkernel:
    """HalfToFloat(bits)."""
    return Microkernel("HalfToFloat", _FROM, includes=("cstdint", "cstring"))


def to_half() -> Microkernel:
    """FloatToHalf(value)."""
    return Microkernel("FloatToHalf", _TO, includes=("cstdint", "cstring"))
