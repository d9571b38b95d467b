"""WebAssembly with relaxed instructions (Chrome 114, Firefox 145, Node 22): a multiply-add in one.

Whether it rounds once or twice is the engine's choice, so that floats differ from machine to
machine; integers do not. A module with such an instruction is refused by engines without.
"""

from dataclasses import replace

from mdlc.codegen.isa.cores import WASM_RELAXED
from mdlc.codegen.isa.wasm.simd128 import FLOAT
from mdlc.codegen.isa.wasm.simd128 import ISA as SIMD128
from mdlc.compiler.types import DType

_RELAXED = replace(FLOAT, spell={**FLOAT.spell, "fma": "wasm_f32x4_relaxed_madd({0}, {1}, {2})"})

ISA = replace(
    SIMD128,
    name="wasm-relaxed",
    description="WebAssembly with 128-bit SIMD and relaxed multiply-adds",
    dialects={DType.F32: _RELAXED},
    core=WASM_RELAXED,
    toolchain=replace(
        SIMD128.toolchain,
        flags=("-msimd128", "-mrelaxed-simd"),
        required=("-mrelaxed-simd",),
        guard=("__wasm__", "__wasm_relaxed_simd__"),
        declares="wasm_f32x4_relaxed_madd",
    ),
)
