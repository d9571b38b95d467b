"""AArch64 with arithmetic in half precision (most phones since 2018; Armv8.2, FEAT_FP16)."""

from dataclasses import replace

from mdlc.codegen.code import Microkernel
from mdlc.codegen.isa.arm.neon import FLOAT, HOLD_LOADS, TOOLCHAIN
from mdlc.codegen.isa.arm.neon import ISA as NEON
from mdlc.codegen.isa.arm.panels import HALVES
from mdlc.codegen.isa.dialect import Dialect
from mdlc.codegen.isa.scalar import SCALAR, SCALAR_SPELLING
from mdlc.compiler.types import DType

# Halves lie in memory as their bits, so that no program accesses them as two types.
_ELEMENT = "std::uint16_t"

_ONE = replace(
    SCALAR,
    dtype=DType.F16,
    element=_ELEMENT,
    spell={
        **SCALAR_SPELLING,
        "load": "static_cast<float>(vgetq_lane_f32(vcvt_f32_f16("
        "vreinterpret_f16_u16(vld1_dup_u16({0}))), 0))",
        "store": "vst1_lane_u16({0}, vreinterpret_u16_f16(vcvt_f16_f32(vdupq_n_f32({1}))), 0)",
    },
)

# A lane lies in one of the first 16 registers. gcc 12 knows, but reads lanes from memory one by
# one, or spreads each over a register of its own.
_FMA_LANE = Microkernel(
    "fma_lane_f16",
    """// acc + b * a[kLane], in one instruction whatever becomes of the intrinsic.
template <int kLane>
inline float16x8_t fma_lane_f16(float16x8_t acc, float16x8_t b, float16x8_t a) {
#if defined(__clang__)
  return vfmaq_laneq_f16(acc, b, a, kLane);
#else
  asm("fmla %0.8h, %1.8h, %2.h[%3]" : "+w"(acc) : "w"(b), "x"(a), "i"(kLane));
  return acc;
#endif
}
""",
)

HALF = Dialect(
    suffix=FLOAT.suffix,
    lanes=8,
    registers=32,
    vector="float16x8_t",
    mask="uint16x8_t",
    lane_rows=6,  # lanes come from the lower half of the registers, where compilers run short
    lane_fma="fma_lane_f16<{3}>({0}, {1}, {2})",
    panels=HALVES,
    dtype=DType.F16,
    element=_ELEMENT,
    as_float=FLOAT,
    scalar=_ONE,
    longest_sum=64,
    bias_last=True,
    helpers={"hold": HOLD_LOADS, "lane_fma": _FMA_LANE},
    spell={
        "load": "vreinterpretq_f16_u16(vld1q_u16({0}))",
        "hold": "hold_loads()",
        "store": "vst1q_u16({0}, vreinterpretq_u16_f16({1}))",
        "set1": "vdupq_n_f16(static_cast<float16_t>({0}))",
        "broadcast": "vreinterpretq_f16_u16(vld1q_dup_u16({0} + {1}))",
        "low": "vcvt_f32_f16(vget_low_f16({0}))",
        "high": "vcvt_high_f32_f16({0})",
        "narrow": "vcvt_high_f16_f32(vcvt_f16_f32({0}), {1})",
        "add": "vaddq_f16({0}, {1})",
        "sub": "vsubq_f16({0}, {1})",
        "mul": "vmulq_f16({0}, {1})",
        "div": "vdivq_f16({0}, {1})",
        "neg": "vnegq_f16({0})",
        "abs": "vabsq_f16({0})",
        "sqrt": "vsqrtq_f16({0})",
        "min": "vminq_f16({0}, {1})",
        "max": "vmaxq_f16({0}, {1})",
        "fma": "vfmaq_f16({2}, {0}, {1})",
        "floor": "vrndmq_f16({0})",
        "ceil": "vrndpq_f16({0})",
        "round": "vrndnq_f16({0})",
        "exp2_biased": "vreinterpretq_f16_u16(vshlq_n_u16(vreinterpretq_u16_f16({0}), 10))",
        "lt": "vcltq_f16({0}, {1})",
        "le": "vcleq_f16({0}, {1})",
        "eq": "vceqq_f16({0}, {1})",
        "is_nan": "vmvnq_u16(vceqq_f16({0}, {0}))",
        "and": "vandq_u16({0}, {1})",
        "or": "vorrq_u16({0}, {1})",
        "xor": "veorq_u16({0}, {1})",
        "not": "vmvnq_u16({0})",
        "select": "vbslq_f16({0}, {1}, {2})",
        "zip_low": "vzip1q_f16({0}, {1})",
        "zip_high": "vzip2q_f16({0}, {1})",
    },
)

ISA = replace(
    NEON,
    tuned_as=NEON.name,
    name="arm-neon+fp16",
    description="AArch64 with NEON and arithmetic in half precision",
    dialects={DType.F32: FLOAT, DType.F16: HALF},
    toolchain=replace(
        TOOLCHAIN,
        flags=("-march=armv8.2-a+fp16",),
        clang="fullfp16",
        cpu_flags=frozenset({"asimdhp", "fphp"}),
        qemu_cpu="neoverse-n1",
    ),
)
