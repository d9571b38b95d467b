"""AArch64 with the dot products of 8-bit integers (most phones since 2018; Armv8.4)."""

from dataclasses import replace

from mdlc.codegen.isa.arm.int8 import dot_products
from mdlc.codegen.isa.arm.neon import ISA as NEON
from mdlc.codegen.isa.arm.neon import TOOLCHAIN

ISA = replace(
    NEON,
    tuned_as=NEON.name,
    name="arm-neon+dotprod",
    description="AArch64 with NEON and 8-bit dot products",
    int8=dot_products(),
    toolchain=replace(
        TOOLCHAIN,
        flags=("-march=armv8.2-a+dotprod",),
        clang="dotprod",
        cpu_flags=frozenset({"asimddp"}),
        qemu_cpu="neoverse-n1",
    ),
)
