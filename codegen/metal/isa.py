"""Metal as instruction sets: what the targets are called, and where their kernels are."""

from dataclasses import replace

from mdlc.codegen.isa.arm.neon import ISA as PROCESSOR  # of every phone with Metal
from mdlc.codegen.isa.base import Isa

__all__ = ["METAL", "METAL_FLOAT", "PROCESSOR"]

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
# The same kernels on textures and weights of floats.
METAL_FLOAT = replace(
    METAL,
    name="metal+fp32",
    description="GPU kernels in float for iOS and macOS, with a C++ and a Swift class",
    vector="float4",
)


def in_float(isa: Isa) -> bool:
    """Whether all textures and weights are floats."""
    return isa.vector == METAL_FLOAT.vector
