"""x86-64 with AVX-512 and its 8-bit dot products (VNNI: Ice Lake, Zen 4 and later)."""

from dataclasses import replace

from mdlc.codegen.isa.x86.avx512 import ISA as AVX512
from mdlc.codegen.isa.x86.int8 import int8

_TOOLCHAIN = AVX512.toolchain

ISA = replace(
    AVX512,
    tuned_as=AVX512.name,
    name="x86-avx512-vnni",
    description="x86-64 with AVX-512 F, DQ, BW, VL and VNNI",
    int8=int8(512, vnni=True),
    toolchain=replace(
        _TOOLCHAIN,
        flags=(*_TOOLCHAIN.flags, "-mavx512vnni"),
        cpu_flags=_TOOLCHAIN.cpu_flags | {"avx512_vnni"},
    ),
)
