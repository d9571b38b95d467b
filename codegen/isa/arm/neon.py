"""AArch64 with plain NEON (every 64-bit ARM phone)."""

from mdlc.codegen.code import Microkernel
from mdlc.codegen.isa.arm.both import FLOATS_OF_BOTH
from mdlc.codegen.isa.arm.int8 import multiplies
from mdlc.codegen.isa.arm.panels import FLOATS
from mdlc.codegen.isa.base import Isa, Toolchain
from mdlc.codegen.isa.cores import AARCH64
from mdlc.codegen.isa.dialect import Dialect, FromBytes
from mdlc.compiler.types import DType

# gcc schedules before it allocates registers, and would have sums spilled for loads far ahead.
HOLD_LOADS = Microkernel(
    "hold_loads",
    """// Keeps gcc from loading ahead what stands behind it, into registers of sums.
inline void hold_loads() {
#if !defined(__clang__)
  asm volatile("" ::: "memory");
#endif
}
""",
)

FLOAT = Dialect(
    suffix="neon",
    lanes=4,
    registers=32,
    vector="float32x4_t",
    mask="uint32x4_t",
    lane_fma="vfmaq_laneq_f32({0}, {1}, {2}, {3})",
    panels=FLOATS,
    from_bytes=FromBytes(
        16,
        (
            "const uint8x16_t bytes = vld1q_u8({0});",
            "const uint16x8_t low = vmovl_u8(vget_low_u8(bytes));",
            "const uint16x8_t high = vmovl_high_u8(bytes);",
        ),
        tuple(
            f"vcvtq_f32_u32({half})"
            for part in ("low", "high")
            for half in (f"vmovl_u16(vget_low_u16({part}))", f"vmovl_high_u16({part})")
        ),
    ),
    helpers={"hold": HOLD_LOADS},
    spell={
        **FLOATS_OF_BOTH,
        "hold": "hold_loads()",
        "div": "vdivq_f32({0}, {1})",
        "sqrt": "vsqrtq_f32({0})",
        "fma": "vfmaq_f32({2}, {0}, {1})",
        "floor": "vrndmq_f32({0})",
        "ceil": "vrndpq_f32({0})",
        "round": "vrndnq_f32({0})",
        "zip_low": "vzip1q_f32({0}, {1})",
        "zip_high": "vzip2q_f32({0}, {1})",
        "reduce_add": "vaddvq_f32({0})",
        "reduce_max": "vmaxvq_f32({0})",
        "reduce_min": "vminvq_f32({0})",
    },
)

# Older versions of clang leave out what the command line does not name. All of it is named here,
# whatever the file needs: of several files in one translation unit, the first includes the header.
_PRELUDE = (
    """#if defined(__clang__) && __clang_major__ < 17
"""
    + "".join(
        f"#if !defined(__ARM_FEATURE_{each})\n#define __ARM_FEATURE_{each} 1\n#endif\n"
        for each in ("DOTPROD", "MATMUL_INT8", "FP16_SCALAR_ARITHMETIC", "FP16_VECTOR_ARITHMETIC")
    )
    + "#endif"
)

TOOLCHAIN = Toolchain(
    triple="aarch64-linux-gnu",
    header="arm_neon.h",
    prelude=_PRELUDE,
    guard=("__aarch64__", "__ARM_NEON"),
    qemu_cpu="cortex-a72",
)

ISA = Isa(
    name="arm-neon",
    description="AArch64 with plain NEON",
    dialects={DType.F32: FLOAT},
    core=AARCH64,
    toolchain=TOOLCHAIN,
    int8=multiplies(),
)
