"""Integer arithmetic of quantised operators: one rounding, defined here and the same everywhere.

A real factor becomes a multiplier of 31 bits and a shift, and

    rescale(a, m, n) = floor((a * m + 2^(n - 1)) / 2^n)

with a product of 64 bits: one rounding, halves upwards. This is the fixed-point form of Jacob et
al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference" (arXiv 1712.05877, section 2.2), with a single rounding in place of gemmlowp's two
(the "rounding up" of XNNPACK's requantisation and TensorFlow Lite's single rounding).

Why this one: floors compose, floor((floor(p / 2^k) + 2^(s - 1)) / 2^s) being
floor((p + 2^(k + s - 1)) / 2^(k + s)). The upper half of a product and a rounding shift therefore
give exactly this value: sqdmulh and srshl on NEON, vpmuldq, an addition and a shift on AVX2 and
AVX-512, where the zero point comes along in the addition for nothing. No step of it needs more
than 32 bits a lane, and none depends on a floating-point mode. Two roundings cost more on
x86 and are less exact.

ONNX Runtime computes round-half-even(float(a) * scale). The two differ only where the real value
lies within 2^-23 of itself of a half, and then by one step.
"""

from __future__ import annotations

import math

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.types import Array, DType

MULTIPLIER_BITS = 31
# Beyond it, a multiplier loses bits: an accumulator of 32 bits is then off by at most 2^-23 of a
# step, and a zero point of 8 bits may be added to what is still to be shifted.
MAX_SHIFT = 53
# Multipliers of a sum of two 8-bit tensors, so that 16-bit instructions do.
SUM_BITS = 15
MOST_SUM_SHIFT = 22


def fixed_point(scale: float | Array) -> tuple[Array, Array]:
    """Multiplier and shift (int32 arrays of the shape of `scale`), scale = m / 2^n nearly.

    The multiplier has 31 bits, less only for factors below 2^-22; the error is at most 2^-31 of
    the factor, or 2^-54.

    Raises:
        MdlcError: a factor is negative, not finite, or 2^30 or more.
    """
    values = np.asarray(scale, np.float64)
    if not np.all(np.isfinite(values)) or np.any(values < 0) or np.any(values >= 2.0**30):
        raise MdlcError(
            f"a rescaling factor of {values.flat[np.argmax(~(values < 2.0**30))]:g}",
            hint="scales must be positive, finite and within 2^30 of each other",
        )
    exponent = np.frexp(values)[1]  # values = mantissa * 2^exponent, 0.5 <= mantissa < 1
    shift = np.minimum(MULTIPLIER_BITS - exponent, MAX_SHIFT)
    multiplier = np.rint(np.ldexp(values, shift)).astype(np.int64)
    rounded_up = multiplier == 1 << MULTIPLIER_BITS
    multiplier = np.where(rounded_up, multiplier >> 1, multiplier)
    shift = np.where(rounded_up, shift - 1, shift)
    shift = np.where(multiplier == 0, MULTIPLIER_BITS, shift)
    return multiplier.astype(np.int32), shift.astype(np.int32)


def rescale(value: Array, multiplier: Array | int, shift: Array | int) -> Array:
    """floor((value * multiplier + 2^(shift - 1)) / 2^shift) as int64; values fit 32 bits."""
    m, n = np.asarray(multiplier, np.int64), np.asarray(shift, np.int64)
    result: Array = (value.astype(np.int64) * m + (np.int64(1) << (n - 1))) >> n
    return result


def saturate(value: Array, low: int, high: int, dtype: DType) -> Array:
    """The values inside [low, high], as `dtype`."""
    return np.clip(value, low, high).astype(dtype.numpy)


def limits(dtype: DType) -> tuple[int, int]:
    """Lowest and highest value of an integer type."""
    if dtype.value.startswith("u"):
        return 0, (1 << dtype.bits) - 1
    return -(1 << (dtype.bits - 1)), (1 << (dtype.bits - 1)) - 1


def sum_multipliers(a_scale: float, b_scale: float) -> tuple[int, int, int]:
    """(ma, mb, n) with ma / 2^n and mb / 2^n the factors of a sum's two inputs.

    The larger multiplier has 15 bits, so that an 8-bit input is off by at most 2^-8 of a step of
    the result while its factor is below 1, and sums stay inside 32 bits.

    Raises:
        MdlcError: a factor is not positive and finite, or the result saturates whatever comes in.
    """
    largest = max(a_scale, b_scale)
    if not (min(a_scale, b_scale) > 0 and largest < 2.0 ** (SUM_BITS - 2)):
        raise MdlcError(f"factors {a_scale:g} and {b_scale:g} of a sum",
                        hint="the scales of a sum's inputs and output differ too much")  # fmt: skip
    shift = min(SUM_BITS - math.frexp(largest)[1], MOST_SUM_SHIFT)
    if round(math.ldexp(largest, shift)) == 1 << SUM_BITS:
        shift -= 1
    return round(math.ldexp(a_scale, shift)), round(math.ldexp(b_scale, shift)), shift
