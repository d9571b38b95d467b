"""x86-64 with AVX-512 (F, DQ, BW, VL: Skylake-X, Zen 4 and later)."""

from mdlc.codegen.code import Microkernel
from mdlc.codegen.isa.base import Isa, Toolchain
from mdlc.codegen.isa.cores import X86_64_AVX512
from mdlc.codegen.isa.dialect import Dialect, FromBytes
from mdlc.codegen.isa.x86.int8 import int8
from mdlc.compiler.types import DType

# Measured on Zen 5: while 512 bits are stored at once, both multiply-add pipes stand still for a
# cycle; two stores of 256 bits cost them nothing. Zen 4 splits the store itself.
_STORE_HALVES = Microkernel(
    "store_halves_f32_avx512",
    """// y[0..15] = v, by halves: a store of 512 bits holds multiply-adds up on Zen 5.
inline void store_halves_f32_avx512(float* y, __m512 v) {
  _mm256_storeu_ps(y, _mm512_maskz_extractf32x8_ps(0xFF, v, 0));
  _mm256_storeu_ps(y + 8, _mm512_maskz_extractf32x8_ps(0xFF, v, 1));
}
""",
)

FLOAT = Dialect(
    suffix="avx512",
    lanes=16,
    registers=32,
    vector="__m512",
    mask="__mmask16",
    from_bytes=FromBytes(
        16,
        (
            "const __m512i words = _mm512_maskz_cvtepu8_epi32(0xFFFF, "
            "_mm_loadu_si128(reinterpret_cast<const __m128i*>({0})));",
        ),
        ("_mm512_maskz_cvtepi32_ps(0xFFFF, words)",),
    ),
    # Zero-masked forms with a full mask where gcc 12's unmasked ones warn of their undefined
    # pass-through operand (GCC bug 105593); the instruction is the same.
    spell={
        "load": "_mm512_loadu_ps({0})",
        "store": "_mm512_storeu_ps({0}, {1})",
        "store_sum": "store_halves_f32_avx512({0}, {1})",
        "set1": "_mm512_set1_ps({0})",
        "prefetch": "_mm_prefetch(reinterpret_cast<const char*>({0}), _MM_HINT_T1)",
        "add": "_mm512_add_ps({0}, {1})",
        "sub": "_mm512_sub_ps({0}, {1})",
        "mul": "_mm512_mul_ps({0}, {1})",
        "div": "_mm512_div_ps({0}, {1})",
        "neg": "_mm512_xor_ps({0}, _mm512_set1_ps(-0.0F))",
        "abs": "_mm512_abs_ps({0})",
        "sqrt": "_mm512_maskz_sqrt_ps(0xFFFF, {0})",
        # minps and maxps give the second operand where one is NaN.
        "min": "_mm512_maskz_min_ps(0xFFFF, {1}, {0})",
        "max": "_mm512_maskz_max_ps(0xFFFF, {1}, {0})",
        "fma": "_mm512_fmadd_ps({0}, {1}, {2})",
        "floor": "_mm512_maskz_roundscale_ps(0xFFFF, {0}, "
        "_MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)",
        "ceil": "_mm512_maskz_roundscale_ps(0xFFFF, {0}, "
        "_MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC)",
        "round": "_mm512_maskz_roundscale_ps(0xFFFF, {0}, "
        "_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)",
        "exp2i": "_mm512_castsi512_ps(_mm512_maskz_slli_epi32(0xFFFF, "
        "_mm512_add_epi32(_mm512_maskz_cvtps_epi32(0xFFFF, {0}), "
        "_mm512_set1_epi32(127)), 23))",
        "exp2_biased": "_mm512_castsi512_ps(_mm512_maskz_slli_epi32(0xFFFF, "
        "_mm512_castps_si512({0}), 23))",
        "lt": "_mm512_cmp_ps_mask({0}, {1}, _CMP_LT_OQ)",
        "le": "_mm512_cmp_ps_mask({0}, {1}, _CMP_LE_OQ)",
        "eq": "_mm512_cmp_ps_mask({0}, {1}, _CMP_EQ_OQ)",
        "is_nan": "_mm512_cmp_ps_mask({0}, {0}, _CMP_UNORD_Q)",
        "and": "_kand_mask16({0}, {1})",
        "or": "_kor_mask16({0}, {1})",
        "xor": "_kxor_mask16({0}, {1})",
        "not": "_knot_mask16({0})",
        "select": "_mm512_mask_blend_ps({0}, {2}, {1})",
        "zip_low": "_mm512_permutex2var_ps({0}, _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, "
        "19, 3, 18, 2, 17, 1, 16, 0), {1})",
        "zip_high": "_mm512_permutex2var_ps({0}, _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, "
        "27, 11, 26, 10, 25, 9, 24, 8), {1})",
        "exponent": "_mm512_maskz_cvtepi32_ps(0xFFFF, "
        "_mm512_sub_epi32(_mm512_maskz_srli_epi32(0xFFFF, "
        "_mm512_castps_si512({0}), 23), _mm512_set1_epi32(127)))",
        "mantissa": "_mm512_castsi512_ps(_mm512_or_epi32(_mm512_and_epi32("
        "_mm512_castps_si512({0}), "
        "_mm512_set1_epi32(0x007FFFFF)), _mm512_set1_epi32(0x3F800000)))",
        "load_part": "_mm512_maskz_loadu_ps((1U << {1}) - 1U, {0})",
        "store_part": "_mm512_mask_storeu_ps({0}, (1U << {2}) - 1U, {1})",
    },
    helpers={"store_sum": _STORE_HALVES},
)

ISA = Isa(
    name="x86-avx512",
    description="x86-64 with AVX-512 F, DQ, BW and VL",
    dialects={DType.F32: FLOAT},
    core=X86_64_AVX512,
    toolchain=Toolchain(
        triple="x86_64-linux-gnu",
        header="immintrin.h",
        flags=("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma"),
        guard=("__x86_64__",),
        cpu_flags=frozenset({"avx512f", "avx512dq", "avx512bw", "avx512vl", "avx2", "fma"}),
    ),
    int8=int8(512, vnni=False),
)
