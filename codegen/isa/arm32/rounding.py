"""Rounding of vectors of floats on 32-bit ARM, which has no instruction for it."""

# The nearest integer, halves to even: adding 2^23 to a magnitude leaves no room for a fraction.
# The sign stays, and so does what has no fraction, or is NaN.
ROUND = (
    "vbslq_f32(vandq_u32(vcaltq_f32({0}, vdupq_n_f32(8388608.0F)), vdupq_n_u32(0x7FFFFFFFU)), "
    "vsubq_f32(vaddq_f32(vabsq_f32({0}), vdupq_n_f32(8388608.0F)), vdupq_n_f32(8388608.0F)), {0})"
)
