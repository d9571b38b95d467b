"""Half precision of arm-neon+fp16 computed on x86, instruction by instruction, for accuracy.

An emulator takes ten seconds for a picture, as it has half precision in software. This instruction
set does the same operations on the same eight lanes in the same order, each in float and rounded
to half (F16C): sums and products of halves are exact or nearly so in float, so that results are
those of the phone but for a double rounding in some 2^-13 of the multiply-adds.
"""

from __future__ import annotations

from dataclasses import replace

from mdlc.codegen.isa.arm.neon_fp16 import HALF as PHONE
from mdlc.codegen.isa.base import Isa
from mdlc.codegen.isa.scalar import SCALAR
from mdlc.codegen.isa.x86.avx2 import FLOAT
from mdlc.codegen.isa.x86.avx2 import ISA as AVX2
from mdlc.compiler.types import DType

_ROUND = "_mm256_cvtps_ph({}, _MM_FROUND_TO_NEAREST_INT)"
_WIDE = "_mm256_cvtph_ps({})"


def _by_float(text: str, operands: int) -> str:
    """A hook of AVX2 between conversions."""
    return _ROUND.format(text.format(*(_WIDE.format(f"{{{i}}}") for i in range(operands))))


_OPERATIONS = {
    "add": 2, "sub": 2, "mul": 2, "div": 2, "sqrt": 1, "min": 2, "max": 2, "fma": 3, "floor": 1,
    "ceil": 1, "round": 1,
}  # fmt: skip


def isa() -> Isa:
    """x86-avx2 that computes in half precision as arm-neon+fp16 does."""
    scalar = {
        **SCALAR.spell,
        "load": "_cvtsh_ss(*({0}))",
        "store": "*({0}) = _cvtss_sh({1}, _MM_FROUND_TO_NEAREST_INT)",
    }
    spell = {
        "load": "_mm_loadu_si128(reinterpret_cast<const __m128i*>({0}))",
        "store": "_mm_storeu_si128(reinterpret_cast<__m128i*>({0}), {1})",
        "set1": "_mm_set1_epi16(static_cast<short>(_cvtss_sh({0}, _MM_FROUND_TO_NEAREST_INT)))",
        "broadcast": "_mm_set1_epi16(static_cast<short>(({0})[{1}]))",
        "low": _WIDE.format("{0}"),
        "narrow": _ROUND.format("{0}"),
        "neg": "_mm_xor_si128({0}, _mm_set1_epi16(static_cast<short>(0x8000)))",
        "abs": "_mm_and_si128({0}, _mm_set1_epi16(0x7FFF))",
        "exp2_biased": "_mm_slli_epi16({0}, 10)",
        **{name: _by_float(FLOAT.spell[name], count) for name, count in _OPERATIONS.items()},
    }
    half = replace(
        PHONE,
        vector="__m128i",
        mask="__m128i",
        lane_fma="",
        panels=None,
        as_float=FLOAT,
        scalar=replace(SCALAR, dtype=PHONE.dtype, element=PHONE.element, spell=scalar),
        spell=spell,
    )
    return replace(
        AVX2,
        name="half-on-host",
        dialects={DType.F32: FLOAT, DType.F16: half},
        toolchain=replace(
            AVX2.toolchain,
            flags=(*AVX2.toolchain.flags, "-mf16c"),
            cpu_flags=AVX2.toolchain.cpu_flags | {"f16c"},
        ),
        int8=None,
    )
