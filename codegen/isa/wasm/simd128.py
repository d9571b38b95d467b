"""WebAssembly with vectors of 128 bits (every browser since 2023, Node, WASI runtimes).

Sums of products are multiplied and added apart: there is no instruction for both. Registers are
those of x86-64, which most engines compile to; AArch64 has more.
"""

from mdlc.codegen.isa.base import Isa, Toolchain
from mdlc.codegen.isa.cores import WASM
from mdlc.codegen.isa.dialect import Dialect, FromBytes
from mdlc.codegen.isa.wasm.int8 import INT8
from mdlc.compiler.types import DType

FLOAT = Dialect(
    suffix="simd128",
    lanes=4,
    registers=16,
    vector="v128_t",
    mask="v128_t",
    from_bytes=FromBytes(
        16,
        (
            "const v128_t bytes = wasm_v128_load({0});",
            "const v128_t low = wasm_u16x8_extend_low_u8x16(bytes);",
            "const v128_t high = wasm_u16x8_extend_high_u8x16(bytes);",
        ),
        tuple(
            f"wasm_f32x4_convert_i32x4(wasm_u32x4_extend_{half}_u16x8({part}))"
            for part in ("low", "high")
            for half in ("low", "high")
        ),
    ),
    spell={
        "load": "wasm_v128_load({0})",
        "store": "wasm_v128_store({0}, {1})",
        "set1": "wasm_f32x4_splat({0})",
        "add": "wasm_f32x4_add({0}, {1})",
        "sub": "wasm_f32x4_sub({0}, {1})",
        "mul": "wasm_f32x4_mul({0}, {1})",
        "div": "wasm_f32x4_div({0}, {1})",
        "neg": "wasm_f32x4_neg({0})",
        "abs": "wasm_f32x4_abs({0})",
        "sqrt": "wasm_f32x4_sqrt({0})",
        # pmin(a, b) is b < a ? b : a, so that a NaN in the first operand stays.
        "min": "wasm_f32x4_pmin({0}, {1})",
        "max": "wasm_f32x4_pmax({0}, {1})",
        "fma": "wasm_f32x4_add(wasm_f32x4_mul({0}, {1}), {2})",
        "floor": "wasm_f32x4_floor({0})",
        "ceil": "wasm_f32x4_ceil({0})",
        "round": "wasm_f32x4_nearest({0})",
        # n + 127 is what is lowest in the bits of n + 127 + 1.5 * 2^23; its 8 bits are the
        # exponent, and what stands above them is shifted out.
        "exp2i": "wasm_i32x4_shl(wasm_f32x4_add({0}, wasm_f32x4_splat(12583039.0F)), 23)",
        "exp2_biased": "wasm_i32x4_shl({0}, 23)",
        "lt": "wasm_f32x4_lt({0}, {1})",
        "le": "wasm_f32x4_le({0}, {1})",
        "eq": "wasm_f32x4_eq({0}, {1})",
        "is_nan": "wasm_f32x4_ne({0}, {0})",
        "and": "wasm_v128_and({0}, {1})",
        "or": "wasm_v128_or({0}, {1})",
        "xor": "wasm_v128_xor({0}, {1})",
        "not": "wasm_v128_not({0})",
        "select": "wasm_v128_bitselect({1}, {2}, {0})",
        "exponent": "wasm_f32x4_convert_i32x4(wasm_i32x4_sub(wasm_u32x4_shr({0}, 23), "
        "wasm_i32x4_splat(127)))",
        "mantissa": "wasm_v128_or(wasm_v128_and({0}, wasm_i32x4_splat(0x007FFFFF)), "
        "wasm_f32x4_splat(1.0F))",
        "zip_low": "wasm_i32x4_shuffle({0}, {1}, 0, 4, 1, 5)",
        "zip_high": "wasm_i32x4_shuffle({0}, {1}, 2, 6, 3, 7)",
    },
)

ISA = Isa(
    name="wasm-simd128",
    description="WebAssembly with 128-bit SIMD",
    dialects={DType.F32: FLOAT},
    core=WASM,
    toolchain=Toolchain(
        triple="wasm32-wasi",
        header="wasm_simd128.h",
        flags=("-msimd128",),
        guard=("__wasm__",),
        emulator="node",
    ),
    int8=INT8,
)
