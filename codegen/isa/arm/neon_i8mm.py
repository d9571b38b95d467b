"""AArch64 with the matrix products of 8-bit integers (Cortex-A510, A710, X2 and later; Armv8.6)."""

from dataclasses import replace

from mdlc.codegen.isa.arm.int8 import matrix_products
from mdlc.codegen.isa.arm.neon_dotprod import ISA as DOTPROD

ISA = replace(
    DOTPROD,
    name="arm-neon+i8mm",
    description="AArch64 with NEON, 8-bit dot products and matrix products",
    int8=matrix_products(),
    toolchain=replace(
        DOTPROD.toolchain,
        flags=("-march=armv8.2-a+dotprod+i8mm",),
        clang="dotprod,i8mm",
        cpu_flags=frozenset({"asimddp", "i8mm"}),
        qemu_cpu="max",
    ),
)
