"""32-bit ARM with NEON (phones before 2015, 32-bit systems on later ones).

Its vectors lack what AArch64's have: division and roots go lane by lane, rounding takes several
instructions, and a multiply-add rounds twice. Numbers below 2^-126 are zero, as NEON has it.
"""

from mdlc.codegen.isa.arm.both import FLOATS_OF_BOTH
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
        **FLOATS_OF_BOTH,
        "div": "({0} / {1})",
        "sqrt": f"float32x4_t{{{{{_ROOTS}}}}}",
        "fma": "vmlaq_f32({2}, {0}, {1})",
        "floor": f"vsubq_f32({ROUND}, {_STEP.format('{0}', 'vcgtq_f32')})",
        "ceil": f"vaddq_f32({ROUND}, {_STEP.format('{0}', 'vcltq_f32')})",
        "round": ROUND,
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
