"""Metal as a backend: what the targets are called, and where their kernels are."""

from __future__ import annotations

from dataclasses import dataclass, field

from mdlc.codegen.isa.arm.neon import ISA as PROCESSOR  # of every phone with Metal
from mdlc.codegen.isa.base import Backend

__all__ = ["METAL", "METAL_FLOAT", "PROCESSOR", "Metal"]


@dataclass(frozen=True)
class Metal(Backend):
    """A GPU with Metal.

    Attributes:
        in_float: whether all textures and weights are floats, not halves.
    """

    kernels: str = field(default="mdlc.codegen.metal.kernels", kw_only=True)
    in_float: bool = False


METAL = Metal("metal", "half-precision GPU kernels for iOS and macOS, with a C++ and a Swift class")
# The same kernels on textures and weights of floats.
METAL_FLOAT = Metal(
    "metal+fp32", "GPU kernels in float for iOS and macOS, with a C++ and a Swift class", True
)
