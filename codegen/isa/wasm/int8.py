"""8-bit integers on WebAssembly: products of pairs of 16 bits, added to 32.

i32x4.dot_i16x8 is exact; activations are widened to 16 bits once. No shift takes a count for each
lane: rescaling multiplies twice and keeps the upper halves.
"""

from __future__ import annotations

from collections.abc import Sequence

from mdlc.codegen.code import Microkernel, advanced
from mdlc.codegen.isa.int8 import SUM_START, Int8
from mdlc.codegen.isa.int8_result import OutputStage, stored_together
from mdlc.codegen.isa.wasm.int8_depthwise import INTERLEAVED, PairForm
from mdlc.compiler.types import DType

_UPPER_PRODUCT = Microkernel(
    "upper_product_simd128",
    """\
// The upper 32 bits of a * b.
inline v128_t upper_product_simd128(v128_t a, v128_t b) {
  const v128_t low = wasm_i64x2_extmul_low_i32x4(a, b);
  const v128_t high = wasm_i64x2_extmul_high_i32x4(a, b);
  return wasm_i32x4_shuffle(low, high, 1, 3, 5, 7);
}
""",
)
_RESCALE = Microkernel(
    "rescale_i32_simd128",
    """\
// (total * multiplier / 2^32 + rounding) >> right, where power is 2^(32 - right).
inline v128_t rescale_i32_simd128(v128_t total, v128_t multiplier, v128_t rounding,
                                  v128_t power) {
  const v128_t high = upper_product_simd128(total, multiplier);
  return upper_product_simd128(wasm_i32x4_add(high, rounding), power);
}
""",
    (_UPPER_PRODUCT,),
)
_SHIFT_LEFT_RESCALE = Microkernel(
    "rescale_shl_i32_simd128",
    """\
// The same after total *= left_power, saturating.
inline v128_t rescale_shl_i32_simd128(v128_t total, v128_t multiplier, v128_t rounding,
                                      v128_t power, v128_t limit, v128_t left_power) {
  total = wasm_i32x4_max(wasm_i32x4_min(total, limit), wasm_v128_not(limit));
  return rescale_i32_simd128(wasm_i32x4_mul(total, left_power), multiplier, rounding, power);
}
""",
    (_RESCALE,),
)
_STORE_PART = Microkernel(
    "store_part_bytes_simd128",
    """\
// Writes the first kCount bytes of v to p.
template <int kCount>
inline void store_part_bytes_simd128(void* p, v128_t v) {
  unsigned char bytes[16];
  wasm_v128_store(bytes, v);
  std::memcpy(p, bytes, kCount);
}
""",
    includes=("cstring",),
)
_LOAD_PART = Microkernel(
    "load_part_bytes_simd128",
    """\
// kCount bytes at p, and zeros.
template <int kCount>
inline v128_t load_part_bytes_simd128(const void* p) {
  unsigned char bytes[16] = {};
  std::memcpy(bytes, p, kCount);
  return wasm_v128_load(bytes);
}
""",
    includes=("cstring",),
)


_NOTHING = "wasm_i32x4_const_splat(0)"


def _narrowed(values: Sequence[str], stage: OutputStage) -> str:
    """At most four vectors of i32 as bytes inside their bounds, zeros behind them."""
    all_four = [*values, *[_NOTHING] * (4 - len(values))]
    words = [
        f"wasm_i16x8_narrow_i32x4({all_four[i]}, {all_four[i + 1]})"
        if i < len(values)
        else _NOTHING
        for i in (0, 2)
    ]
    unsigned = stage.target is DType.U8
    sign = "u8x16" if unsigned else "i8x16"
    text = f"wasm_{sign}_narrow_i16x8({words[0]}, {words[1]})"
    for name, number, used in zip(("max", "min"), ("Low", "High"), stage.bounded, strict=True):
        if used:
            bound = f"static_cast<std::{'u' if unsigned else ''}int8_t>({stage.prefix}{number})"
            text = f"wasm_{sign}_{name}({text}, wasm_{sign}_splat({bound}))"
    return text


def _put(text: str, to: str, count: int) -> tuple[str, list[Microkernel]]:
    """The first bytes of a vector stored."""
    if count == 16:
        return f"wasm_v128_store({to}, {text});", []
    if count in (4, 8):
        return f"wasm_v128_store{8 * count}_lane({to}, {text}, 0);", []
    return f"{_STORE_PART.name}<{count}>({to}, {text});", [_STORE_PART]


def _store_bytes(
    values: Sequence[str], where: str, stage: OutputStage, part: int, zero: str = "kZero"
) -> tuple[list[str], list[Microkernel]]:
    """See int8.StoreBytes; up to four vectors at a time."""
    if not stage.zero_point_folded:
        values = [f"wasm_i32x4_add({value}, wasm_i32x4_splat({zero}))" for value in values]
    lines: list[str] = []
    needs: list[Microkernel] = []
    for group, at, lanes in stored_together(values, part):
        line, helpers = _put(_narrowed(group, stage), advanced(where, at), lanes)
        lines.append(line)
        needs += helpers
    return lines, needs


def _store_sums(
    values: Sequence[str], other: str, where: str, stage: OutputStage, part: int
) -> tuple[list[str], list[Microkernel]]:
    """Pairs of 16 bits, the own byte and the other, times pairs of multipliers."""
    added = stage.addition
    assert added is not None
    kind = "u" if added.kind is DType.U8 else "i"
    lines = [
        f"constexpr int kStart = {SUM_START};",
        "const v128_t factors = wasm_i32x4_splat(kMb * 65536 + kMa);",
    ]
    needs: list[Microkernel] = []
    sums: list[str] = []
    for at in range(0, len(values), 2):
        pair = values[at : at + 2]
        lanes = 4 * len(pair) - (4 - part if part and at + 2 >= len(values) else 0)
        source = advanced(other, 4 * at)
        bytes_ = f"wasm_v128_load{8 * lanes}_zero({source})"
        if lanes not in (4, 8):
            bytes_ = f"{_LOAD_PART.name}<{lanes}>({source})"
            needs.append(_LOAD_PART)
        lines.append(f"const v128_t own{at} = wasm_i16x8_max(wasm_i16x8_min("
                     f"wasm_i16x8_narrow_i32x4({pair[0]}, {pair[-1]}), "
                     "wasm_i16x8_splat(kHigh)), wasm_i16x8_splat(kLow));")  # fmt: skip
        lines.append(f"const v128_t theirs{at} = wasm_{kind}16x8_extend_low_{kind}8x16({bytes_});")
        for i, order in enumerate(INTERLEAVED[: len(pair)]):
            total = f"wasm_i16x8_shuffle(own{at}, theirs{at}, {order})"
            total = f"wasm_i32x4_add(wasm_i32x4_dot_i16x8({total}, factors), {_START})"
            sums.append(f"sum{at + i}")
            lines.append(f"const v128_t {sums[-1]} = wasm_i32x4_shr({total}, kShift);")
    stored, helpers = _store_bytes(sums, where, added.result, part)
    return lines + stored, needs + helpers


_START = "wasm_i32x4_splat(kStart)"


def _add_bytes(kind: DType) -> tuple[list[str], list[str]]:
    """See int8.AddBytes; 16 bytes at a time."""
    sign = "u" if kind is DType.U8 else "i"
    lines = ["const v128_t factors = wasm_i32x4_splat(kMb * 65536 + kMa);"]
    for name in "ab":
        lines.append(f"const v128_t {name}_bytes = wasm_v128_load({name} + i);")
        for half in ("low", "high"):
            widened = f"wasm_{sign}16x8_extend_{half}_{sign}8x16({name}_bytes)"
            lines.append(f"const v128_t {name}_{half} = {widened};")
    values: list[str] = []
    for half in ("low", "high"):
        for order in INTERLEAVED:
            pairs = f"wasm_i16x8_shuffle(a_{half}, b_{half}, {order})"
            total = f"wasm_i32x4_add(wasm_i32x4_dot_i16x8({pairs}, factors), {_START})"
            values.append(f"total{len(values)}")
            lines.append(f"const v128_t {values[-1]} = wasm_i32x4_shr({total}, kShift);")
    return lines, values


def _spell() -> dict[str, str]:
    found = {
        "add": "wasm_i32x4_add({0}, {1})",
        "sub": "wasm_i32x4_sub({0}, {1})",
        "to_float": "wasm_f32x4_convert_i32x4({0})",
        "to_int": "wasm_i32x4_trunc_sat_f32x4(wasm_f32x4_nearest({0}))",
        "at_least": "wasm_f32x4_pmax({1}, {0})",
    }
    for kind, sign in (("i8", "i"), ("u8", "u")):
        low = f"wasm_{sign}16x8_extend_low_{sign}8x16(wasm_v128_load32_zero({{0}}))"
        found[f"load_{kind}"] = f"wasm_{sign}32x4_extend_low_{sign}16x8({low})"
        found[f"bytes_{kind}"] = "v128_t"
        found[f"load_bytes_{kind}"] = "wasm_v128_load({0})"
        found[f"put_bytes_{kind}"] = "wasm_v128_store({0}, {1})"
        found[f"max_{kind}"] = f"wasm_{sign}8x16_max({{0}}, {{1}})"
    return found


INT8 = Int8(
    vector="v128_t",
    group=2,
    element=DType.I16,
    broadcast="wasm_v128_load32_splat({0})",
    load_w="wasm_i16x8_load8x8({0})",
    dot="wasm_i32x4_add({0}, wasm_i32x4_dot_i16x8({1}, {2}))",
    load="wasm_v128_load({0})",
    store="wasm_v128_store({0}, {1})",
    set1="wasm_i32x4_splat({0})",
    fields=("multiplier", "rounding", "power"),
    shift_left_fields=("multiplier", "rounding", "power", "limit", "left_power"),
    rescale=_RESCALE,
    shift_left_rescale=_SHIFT_LEFT_RESCALE,
    store_bytes=_store_bytes,
    store_sums=_store_sums,
    add_bytes=_add_bytes,
    rows_at_once=4,
    dot_instructions=2.0,
    requantize_instructions=12.0,
    byte_lanes=16,
    spell=_spell(),
    depthwise=(PairForm(),),
)
