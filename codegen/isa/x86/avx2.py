"""x86-64 with AVX2 and FMA (Haswell, Zen and later)."""

from mdlc.codegen.isa.base import Isa, Toolchain
from mdlc.codegen.isa.cores import X86_64
from mdlc.codegen.isa.dialect import Dialect, FromBytes
from mdlc.codegen.isa.x86.int8 import int8
from mdlc.compiler.types import DType

FLOAT = Dialect(
    suffix="avx2",
    lanes=8,
    registers=16,
    vector="__m256",
    mask="__m256",
    from_bytes=FromBytes(
        8,
        (
            "const __m256i words = _mm256_cvtepu8_epi32("
            "_mm_loadl_epi64(reinterpret_cast<const __m128i*>({0})));",
        ),
        ("_mm256_cvtepi32_ps(words)",),
    ),
    spell={
        "load": "_mm256_loadu_ps({0})",
        "store": "_mm256_storeu_ps({0}, {1})",
        "set1": "_mm256_set1_ps({0})",
        "prefetch": "_mm_prefetch(reinterpret_cast<const char*>({0}), _MM_HINT_T1)",
        "add": "_mm256_add_ps({0}, {1})",
        "sub": "_mm256_sub_ps({0}, {1})",
        "mul": "_mm256_mul_ps({0}, {1})",
        "div": "_mm256_div_ps({0}, {1})",
        "neg": "_mm256_xor_ps({0}, _mm256_set1_ps(-0.0F))",
        "abs": "_mm256_andnot_ps(_mm256_set1_ps(-0.0F), {0})",
        "sqrt": "_mm256_sqrt_ps({0})",
        # minps and maxps give the second operand where one is NaN.
        "min": "_mm256_min_ps({1}, {0})",
        "max": "_mm256_max_ps({1}, {0})",
        "fma": "_mm256_fmadd_ps({0}, {1}, {2})",
        "floor": "_mm256_floor_ps({0})",
        "ceil": "_mm256_ceil_ps({0})",
        "round": "_mm256_round_ps({0}, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)",
        "exp2i": "_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32({0}), "
        "_mm256_set1_epi32(127)), 23))",
        "exp2_biased": "_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256({0}), 23))",
        "lt": "_mm256_cmp_ps({0}, {1}, _CMP_LT_OQ)",
        "le": "_mm256_cmp_ps({0}, {1}, _CMP_LE_OQ)",
        "eq": "_mm256_cmp_ps({0}, {1}, _CMP_EQ_OQ)",
        "is_nan": "_mm256_cmp_ps({0}, {0}, _CMP_UNORD_Q)",
        "and": "_mm256_and_ps({0}, {1})",
        "or": "_mm256_or_ps({0}, {1})",
        "xor": "_mm256_xor_ps({0}, {1})",
        "not": "_mm256_xor_ps({0}, _mm256_castsi256_ps(_mm256_set1_epi32(-1)))",
        "select": "_mm256_blendv_ps({2}, {1}, {0})",
        "zip_low": "_mm256_permute2f128_ps(_mm256_unpacklo_ps({0}, {1}), "
        "_mm256_unpackhi_ps({0}, {1}), 0x20)",
        "zip_high": "_mm256_permute2f128_ps(_mm256_unpacklo_ps({0}, {1}), "
        "_mm256_unpackhi_ps({0}, {1}), 0x31)",
        "exponent": "_mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_srli_epi32("
        "_mm256_castps_si256({0}), 23), _mm256_set1_epi32(127)))",
        "mantissa": "_mm256_or_ps(_mm256_and_ps({0}, _mm256_castsi256_ps("
        "_mm256_set1_epi32(0x007FFFFF))), _mm256_set1_ps(1.0F))",
    },
)

ISA = Isa(
    name="x86-avx2",
    description="x86-64 with AVX2 and FMA",
    dialects={DType.F32: FLOAT},
    core=X86_64,
    toolchain=Toolchain(
        triple="x86_64-linux-gnu",
        header="immintrin.h",
        flags=("-mavx2", "-mfma"),
        guard=("__x86_64__",),
        cpu_flags=frozenset({"avx2", "fma"}),
    ),
    int8=int8(256, vnni=False),
)
