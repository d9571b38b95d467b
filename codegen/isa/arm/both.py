"""Intrinsics that AArch64 and 32-bit ARM have in common, of vectors of 128 bits."""

# Of floats; see Dialect.spell.
FLOATS_OF_BOTH = {
    "load": "vld1q_f32({0})",
    "store": "vst1q_f32({0}, {1})",
    "set1": "vdupq_n_f32({0})",
    "add": "vaddq_f32({0}, {1})",
    "sub": "vsubq_f32({0}, {1})",
    "mul": "vmulq_f32({0}, {1})",
    "neg": "vnegq_f32({0})",
    "abs": "vabsq_f32({0})",
    "min": "vminq_f32({0}, {1})",
    "max": "vmaxq_f32({0}, {1})",
    "exp2i": "vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32({0}), "
    "vdupq_n_s32(127)), 23))",
    "exp2_biased": "vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32({0}), 23))",
    "lt": "vcltq_f32({0}, {1})",
    "le": "vcleq_f32({0}, {1})",
    "eq": "vceqq_f32({0}, {1})",
    "is_nan": "vmvnq_u32(vceqq_f32({0}, {0}))",
    "and": "vandq_u32({0}, {1})",
    "or": "vorrq_u32({0}, {1})",
    "xor": "veorq_u32({0}, {1})",
    "not": "vmvnq_u32({0})",
    "select": "vbslq_f32({0}, {1}, {2})",
    "exponent": "vcvtq_f32_s32(vsubq_s32(vreinterpretq_s32_u32(vshrq_n_u32("
    "vreinterpretq_u32_f32({0}), 23)), vdupq_n_s32(127)))",
    "mantissa": "vreinterpretq_f32_u32(vorrq_u32(vandq_u32(vreinterpretq_u32_f32({0}), "
    "vdupq_n_u32(0x007FFFFF)), vdupq_n_u32(0x3F800000)))",
}

# Of integers; see Int8.spell.
INTEGERS_OF_BOTH = {
    "add": "vaddq_s32({0}, {1})",
    "sub": "vsubq_s32({0}, {1})",
    "to_float": "vcvtq_f32_s32({0})",
    "bytes_i8": "int8x16_t",
    "bytes_u8": "uint8x16_t",
    "load_bytes_i8": "vld1q_s8({0})",
    "load_bytes_u8": "vld1q_u8({0})",
    "put_bytes_i8": "vst1q_s8({0}, {1})",
    "put_bytes_u8": "vst1q_u8({0}, {1})",
    "max_i8": "vmaxq_s8({0}, {1})",
    "max_u8": "vmaxq_u8({0}, {1})",
}
