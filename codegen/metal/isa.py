"""Metal as an instruction set: what the target is called, and where its kernels are."""

from mdlc.codegen.isa import Isa
from mdlc.codegen.isas.arm_neon import ISA as PROCESSOR  # of every phone with Metal

__all__ = ["METAL", "PROCESSOR"]

METAL = Isa(
    name="metal",
    suffix="metal",
    description="half-precision GPU kernels for iOS and macOS, with a C++ and a Swift class",
    lanes=4,
    registers=32,
    vector="half4",
    mask="bool4",
    header="",
    flags=(),
    triple="",
    spell={},
    kernels="mdlc.codegen.metal.kernels",
)
