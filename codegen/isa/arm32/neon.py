"""32-bit ARM with NEON (phones before 2015, 32-bit systems on later ones).

Its vectors lack what AArch64's have: division and roots go lane by lane, rounding takes several
instructions, and a multiply-add rounds twice. Numbers below 2^-126 are zero, as NEON has it.
"""

from mdlc.codegen.isa.arm32.int8 import INT8
from mdlc.codegen.isa.arm32.rounding import ROUND
from mdlc.codegen.isa.base import Isa, Toolchain
from mdlc.codegen.isa.cores import ARMV7
from mdlc.codegen.isa.dialect import Dialect, FromBytes
from mdlc.compiler.types import DType

# 1 where the rounded number is on the wrong side ({1}: a comparison), else 0.
_STEP = (
    f"vreinterpretq_f32_u32(vandq_u32({{1}}({ROUND}, {{0}}), "
    "vreinterpretq_u32_f32(vdupq_n_f32(1.0F))))"
)
_ROOTS = ", ".join(f"__builtin_sqrtf(vgetq_lane_f32({{0}}, {lane}))" for lane in range(4))

FLOAT = Dialect(
    suffix="armv7",
    lanes=4,
    registers=16,
    vector="float32x4_t",
    mask="uint32x4_t",
    from_bytes=FromBytes(
        8,
        ("const uint16x8_t words = vmovl_u8(vld1_u8({0}));",),
        tuple(f"vcvtq_f32_u32(vmovl_u16(vget_{half}_u16(words)))" for half in ("low", "high")),
    ),
    spell={
        "load": "vld1q_f32({0})",
        "store": "vst1q_f32({0}, {1})",
        "set1": "vdupq_n_f32({0})",
        "add": "vaddq_f32({0}, {1})",
        "sub": "vsubq_f32({0}, {1})",
        "mul": "vmulq_f32({0}, {1})",
        "div": "({0} / {1})",
        "neg": "vnegq_f32({0})",
        "abs": "vabsq_f32({0})",
        "sqrt": f"float32x4_t{{{{{_ROOTS}}}}}",
        "min": "vminq_f32({0}, {1})",
        "max": "vmaxq_f32({0}, {1})",
        "fma": "vmlaq_f32({2}, {0}, {1})",
        "floor": f"vsubq_f32({ROUND}, {_STEP.format('{0}', 'vcgtq_f32')})",
        "ceil": f"vaddq_f32({ROUND}, {_STEP.format('{0}', 'vcltq_f32')})",
        "round": ROUND,
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
        "zip_low": "vzipq_f32({0}, {1}).val[0]",
        "zip_high": "vzipq_f32({0}, {1}).val[1]",
    },
)

ISA = Isa(
    name="armv7-neon",
    description="32-bit ARM with NEON",
    dialects={DType.F32: FLOAT},
    core=ARMV7,
    toolchain=Toolchain(
        triple="arm-linux-gnueabihf",
        header="arm_neon.h",
        required=("-mfpu=neon",),
        guard=("__arm__", "__ARM_NEON"),
        qemu_cpu="cortex-a9",
    ),
    int8=INT8,
)
