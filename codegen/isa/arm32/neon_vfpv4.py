"""32-bit ARM with NEON and VFPv4 (Cortex-A7, A15 and later): a multiply-add rounds once."""

from dataclasses import replace

from mdlc.codegen.isa.arm32.neon import FLOAT
from mdlc.codegen.isa.arm32.neon import ISA as NEON
from mdlc.compiler.types import DType

_FUSED = replace(FLOAT, spell={**FLOAT.spell, "fma": "vfmaq_f32({2}, {0}, {1})"})

ISA = replace(
    NEON,
    tuned_as=NEON.name,
    name="armv7-neon+vfpv4",
    description="32-bit ARM with NEON and fused multiply-adds",
    dialects={DType.F32: _FUSED},
    toolchain=replace(
        NEON.toolchain,
        required=("-mfpu=neon-vfpv4",),
        guard=(*NEON.toolchain.guard, "__ARM_FEATURE_FMA"),
        qemu_cpu="cortex-a15",
    ),
)
