"""8-bit integers on 32-bit ARM: products of 16 bits, added to 32 (vmlal).

Activations are widened to 16 bits once. Rescaling is that of AArch64: vqdmulh is a floor, and a
rounding shift of a floor rounds once (compiler/fixed_point.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from mdlc.codegen.code import Microkernel, advanced
from mdlc.codegen.isa.arm.both import INTEGERS_OF_BOTH
from mdlc.codegen.isa.arm.int8 import RESCALE, SHIFT_LEFT_RESCALE
from mdlc.codegen.isa.arm32.int8_depthwise import MultiplyForm
from mdlc.codegen.isa.arm32.rounding import ROUND
from mdlc.codegen.isa.int8 import Int8
from mdlc.codegen.isa.int8_result import OutputStage, stored_together
from mdlc.compiler.types import DType

_FOUR_BYTES = Microkernel(
    "four_bytes",
    """\
// Four bytes at p, twice.
inline uint8x8_t four_bytes(const void* p) {
  std::uint32_t word;
  std::memcpy(&word, p, sizeof(word));
  return vreinterpret_u8_u32(vdup_n_u32(word));
}
""",
    includes=("cstring",),
)
_STORE_PART = Microkernel(
    "store_part_bytes",
    """\
// Writes the first kCount bytes of v to p.
template <int kCount>
inline void store_part_bytes(void* p, uint8x8_t v) {
  std::uint8_t bytes[8];
  vst1_u8(bytes, v);
  std::memcpy(p, bytes, kCount);
}
""",
    includes=("cstring",),
)
_LOAD_PART = Microkernel(
    "load_part_bytes",
    """\
// kCount bytes at p, and zeros.
template <int kCount>
inline uint8x8_t load_part_bytes(const void* p) {
  std::uint8_t bytes[8] = {};
  std::memcpy(bytes, p, kCount);
  return vld1_u8(bytes);
}
""",
    includes=("cstring",),
)


def _words(values: Sequence[str], zero: str = "") -> str:
    """One or two vectors of i32 as eight of i16, a zero point added."""
    low = f"vqmovn_s32({values[0]})"
    high = f"vqmovn_s32({values[1]})" if len(values) > 1 else "vdup_n_s16(0)"
    both = f"vcombine_s16({low}, {high})"
    return f"vqaddq_s16({both}, vdupq_n_s16({zero}))" if zero else both


def _put(words: str, to: str, lanes: int, stage: OutputStage) -> tuple[str, list[Microkernel]]:
    """Eight i16 stored as at most as many bytes."""
    unsigned = stage.target is DType.U8
    kind = "u8" if unsigned else "s8"
    text = f"vqmovun_s16({words})" if unsigned else f"vqmovn_s16({words})"
    low, high = stage.bounded
    if low:
        text = f"vmax_{kind}({text}, vdup_n_{kind}({stage.prefix}Low))"
    if high:
        text = f"vmin_{kind}({text}, vdup_n_{kind}({stage.prefix}High))"
    if lanes == 8:
        return f"vst1_{kind}({to}, {text});", []
    text = text if unsigned else f"vreinterpret_u8_s8({text})"
    return f"store_part_bytes<{lanes}>({to}, {text});", [_STORE_PART]


def _pairs(values: Sequence[str], part: int) -> list[tuple[Sequence[str], int, int]]:
    """Vectors two at a time: them, where their first byte goes, and how many are stored."""
    return [
        (group[at : at + 2], first + 4 * at, min(8, lanes - 4 * at))
        for group, first, lanes in stored_together(values, part)
        for at in range(0, len(group), 2)
    ]


def _store_bytes(
    values: Sequence[str], where: str, stage: OutputStage, part: int, zero: str = "kZero"
) -> tuple[list[str], list[Microkernel]]:
    """See int8.StoreBytes; two vectors at a time."""
    added = zero if zero == "kZero" else f"static_cast<std::int16_t>({zero})"
    lines: list[str] = []
    needs: list[Microkernel] = []
    for pair, at, lanes in _pairs(values, part):
        line, helpers = _put(_words(pair, added), advanced(where, at), lanes, stage)
        lines.append(line)
        needs += helpers
    return lines, needs


def _store_sums(
    values: Sequence[str], other: str, where: str, stage: OutputStage, part: int
) -> tuple[list[str], list[Microkernel]]:
    """See int8.StoreSums; products of 16 bits, both sides less their zero points."""
    added = stage.addition
    assert added is not None
    kind = "u8" if added.kind is DType.U8 else "s8"
    lines = [
        "const int16x8_t lower = vdupq_n_s16(kLow - kZero);",
        "const int16x8_t upper = vdupq_n_s16(kHigh - kZero);",
    ]
    needs: list[Microkernel] = []
    for number, (pair, at, lanes) in enumerate(_pairs(values, part)):
        source = advanced(other, at)
        bytes_ = f"vld1_{kind}({source})"
        if lanes < 8:
            bytes_ = f"load_part_bytes<{lanes}>({source})"
            bytes_ = bytes_ if kind == "u8" else f"vreinterpret_s8_u8({bytes_})"
            needs.append(_LOAD_PART)
        less = f"vsubl_{kind}({bytes_}, vdup_n_{kind}(kOtherZero))"
        less = less if kind == "s8" else f"vreinterpretq_s16_u16({less})"
        lines.append(f"const int16x8_t theirs{number} = {less};")
        bounded = f"vmaxq_s16(vminq_s16({_words(pair)}, upper), lower)"
        lines.append(f"const int16x8_t own{number} = {bounded};")
        sums = []
        for half in ("low", "high")[: len(pair)]:
            total = f"vmull_n_s16(vget_{half}_s16(own{number}), kMa)"
            total = f"vmlal_n_s16({total}, vget_{half}_s16(theirs{number}), kMb)"
            sums.append(f"vrshrq_n_s32({total}, kShift)")
        line, helpers = _put(_words(sums, "kSumZero"), advanced(where, at), lanes, added.result)
        lines.append(line)
        needs += helpers
    return lines, needs


def _add_bytes(kind: DType) -> tuple[list[str], list[str]]:
    """See int8.AddBytes; 16 bytes at a time."""
    s = "u8" if kind is DType.U8 else "s8"
    lines = ["const int32x4_t start = vdupq_n_s32(kStart);"]
    values: list[str] = []
    for part in range(2):
        for name in "ab":
            value = f"vmovl_{s}(vld1_{s}({name} + i + {8 * part}))" if part else (
                f"vmovl_{s}(vld1_{s}({name} + i))")  # fmt: skip
            value = value if s == "s8" else f"vreinterpretq_s16_u16({value})"
            lines.append(f"const int16x8_t {name}{part} = {value};")
        for half in ("low", "high"):
            total = "start"
            for name, factor in (("a", "kMa"), ("b", "kMb")):
                total = f"vmlal_n_s16({total}, vget_{half}_s16({name}{part}), {factor})"
            values.append(f"total{len(values)}")
            lines.append(f"const int32x4_t {values[-1]} = vshrq_n_s32({total}, kShift);")
    return lines, values


# Four signed bytes, widened.
_WEIGHTS = "vget_low_s16(vmovl_s8(vreinterpret_s8_u8(four_bytes({0}))))"

INT8 = Int8(
    vector="int32x4_t",
    group=1,
    element=DType.I16,
    broadcast="vld1_dup_s16({0})",
    load_w=_WEIGHTS,
    dot="vmlal_s16({0}, {1}, {2})",
    load="vld1q_s32({0})",
    store="vst1q_s32({0}, {1})",
    set1="vdupq_n_s32({0})",
    fields=("multiplier", "down"),
    shift_left_fields=("multiplier", "down", "left"),
    rescale=RESCALE,
    shift_left_rescale=SHIFT_LEFT_RESCALE,
    store_bytes=_store_bytes,
    store_sums=_store_sums,
    add_bytes=_add_bytes,
    rows_at_once=4,
    byte_lanes=16,
    requantize_instructions=6.0,
    depthwise=(MultiplyForm(),),
    helpers=(_FOUR_BYTES,),
    spell={
        **INTEGERS_OF_BOTH,
        "load_i8": f"vmovl_s16({_WEIGHTS})",
        "load_u8": "vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(four_bytes({0})))))",
        "to_int": f"vcvtq_s32_f32({ROUND})",
        "at_least": "vbslq_f32(vcgtq_f32({0}, {1}), {0}, {1})",
    },
)
