"""x86-64 with AVX-512 and its 8-bit dot products (VNNI: Ice Lake, Zen 4 and later)."""

from dataclasses import replace

from mdlc.codegen.isa.x86.avx512 import ISA as AVX512
from mdlc.codegen.isa.x86.int8 import integers

ISA = replace(
    AVX512,
    tuned_as=AVX512.name,
    name="x86-avx512-vnni",
    description="x86-64 with AVX-512 F, DQ, BW, VL and VNNI",
    flags=(*AVX512.flags, "-mavx512vnni"),
    cpu_flags=AVX512.cpu_flags | {"avx512_vnni"},
    guard=(*AVX512.guard, "__AVX512VNNI__"),
    cpu_check=f'{AVX512.cpu_check} && __builtin_cpu_supports("avx512vnni")',
    integers=integers(512, vnni=True),
)
