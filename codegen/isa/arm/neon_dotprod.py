"""AArch64 with the dot products of 8-bit integers (most phones since 2018; Armv8.4)."""

from dataclasses import replace

from mdlc.codegen.isa.arm.int8 import dot_products
from mdlc.codegen.isa.arm.neon import ISA as NEON

ISA = replace(
    NEON,
    tuned_as=NEON.name,
    name="arm-neon+dotprod",
    description="AArch64 with NEON and 8-bit dot products",
    flags=("-march=armv8.2-a+dotprod",),
    qemu_cpu="neoverse-n1",
    cpu_flags=frozenset({"asimddp"}),
    guard=(*NEON.guard, "__ARM_FEATURE_DOTPROD"),
    integers=dot_products(),
)
