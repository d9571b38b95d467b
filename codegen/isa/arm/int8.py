"""8-bit integers on AArch64: rescaling, narrowing and what element-wise layers need.

Rescaling is sqdmulh and srshl: the upper half of the doubled product is a floor, and a rounding
shift of a floor rounds once (compiler/fixed_point.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from mdlc.codegen.code import Microkernel, advanced
from mdlc.codegen.isa.arm.both import INTEGERS_OF_BOTH
from mdlc.codegen.isa.arm.int8_depthwise import DotForm, MultiplyForm
from mdlc.codegen.isa.arm.int8_dot import DotLoop, MatrixLoop, MultiplyLoop
from mdlc.codegen.isa.int8 import DepthLoop, DepthwiseForm, Int8
from mdlc.codegen.isa.int8_result import OutputStage, stored_together
from mdlc.compiler.types import DType

RESCALE = Microkernel(
    "rescale_i32_neon",
    """\
// (total * multiplier / 2^31 + 2^(-down - 1)) >> -down.
inline int32x4_t rescale_i32_neon(int32x4_t total, int32x4_t multiplier, int32x4_t down) {
  return vrshlq_s32(vqdmulhq_s32(total, multiplier), down);
}
""",
)
SHIFT_LEFT_RESCALE = Microkernel(
    "rescale_shl_i32_neon",
    """\
// (total * 2^left * multiplier / 2^31 + 2^(-down - 1)) >> -down, the first shift saturating.
inline int32x4_t rescale_shl_i32_neon(int32x4_t total, int32x4_t multiplier, int32x4_t down,
                                       int32x4_t left) {
  return vrshlq_s32(vqdmulhq_s32(vqshlq_s32(total, left), multiplier), down);
}
""",
)
_STORE_PART = Microkernel(
    "store_part_bytes_neon",
    """\
// Writes the first kCount bytes of v to p.
template <int kCount>
inline void store_part_bytes_neon(void* p, uint8x16_t v) {
  const std::uint64_t low = vgetq_lane_u64(vreinterpretq_u64_u8(v), 0);
  if (kCount == 4) {
    std::memcpy(p, &low, 4);
    return;
  }
  if (kCount == 12) {
    const std::uint32_t rest = vgetq_lane_u32(vreinterpretq_u32_u8(v), 2);
    std::memcpy(p, &low, 8);
    std::memcpy(static_cast<char*>(p) + 8, &rest, 4);
    return;
  }
  std::uint8_t bytes[16];
  vst1q_u8(bytes, v);
  std::memcpy(p, bytes, kCount);
}
""",
    includes=("cstring",),
)
_LOAD_FEW = Microkernel(
    "load_few_bytes_neon",
    """\
// kCount bytes at p, at most 7, and anything behind them.
template <int kCount>
inline uint8x8_t load_few_bytes_neon(const void* p) {
  if (kCount == 4) {
    std::uint32_t word;
    std::memcpy(&word, p, 4);
    return vreinterpret_u8_u32(vdup_n_u32(word));
  }
  std::uint64_t bytes = 0;
  std::memcpy(&bytes, p, kCount);
  return vcreate_u8(bytes);
}
""",
    includes=("cstring",),
)
_TABLE_ROW = Microkernel(
    "table_row_neon",
    """\
// y[i] = table[x[i]] for kCount bytes, x[i] read as an unsigned byte; 16 at a time.
template <int kCount, typename X, typename Y>
inline void table_row_neon(const Y* table, const X* x, Y* y) {
  const std::uint8_t* at = reinterpret_cast<const std::uint8_t*>(table);
  const uint8x16x4_t t0 = vld1q_u8_x4(at);
  const uint8x16x4_t t1 = vld1q_u8_x4(at + 64);
  const uint8x16x4_t t2 = vld1q_u8_x4(at + 128);
  const uint8x16x4_t t3 = vld1q_u8_x4(at + 192);
  int i = 0;
  for (; i <= kCount - 16; i += 16) {
    const uint8x16_t v = vld1q_u8(reinterpret_cast<const std::uint8_t*>(x + i));
    uint8x16_t found = vqtbl4q_u8(t0, v);
    found = vqtbx4q_u8(found, t1, vsubq_u8(v, vdupq_n_u8(64)));
    found = vqtbx4q_u8(found, t2, vsubq_u8(v, vdupq_n_u8(128)));
    found = vqtbx4q_u8(found, t3, vsubq_u8(v, vdupq_n_u8(192)));
    vst1q_u8(reinterpret_cast<std::uint8_t*>(y + i), found);
  }
  for (; i < kCount; ++i) y[i] = table[static_cast<unsigned char>(x[i])];
}
""",
)


def _words(values: Sequence[str], zero: str | None) -> str:
    """One or two vectors of i32 as eight of i16, the zero point added (None: later)."""
    low = f"vqmovn_s32({values[0]})"
    both = (
        f"vqmovn_high_s32({low}, {values[1]})"
        if len(values) > 1
        else f"vcombine_s16({low}, vdup_n_s16(0))"
    )
    return both if zero is None else f"vqaddq_s16({both}, vdupq_n_s16({zero}))"


def _put(
    words: Sequence[str], to: str, lanes: int, stage: OutputStage
) -> tuple[str, list[Microkernel]]:
    """One or two vectors of i16 (the zero point added, unless it rises) stored as bytes."""
    unsigned = stage.target is DType.U8
    kind, narrow = ("u8", "vqmovun") if unsigned else ("s8", "vqmovn")
    if stage.narrowing_adds_zero_point:
        # Saturated to 0 to 255, then 128 less: a flip of the sign.
        narrow = "vqmovun"
    text = f"{narrow}_s16({words[0]})"
    quad = "q" if len(words) > 1 else ""
    if quad:
        text = f"{narrow}_high_s16({text}, {words[1]})"
    if stage.narrowing_adds_zero_point:
        text = f"vreinterpret{quad}_s8_u8(veor{quad}_u8({text}, vdup{quad}_n_u8(128)))"
    low, high = stage.bounded
    if low:
        text = f"vmax{quad}_{kind}({text}, vdup{quad}_n_{kind}({stage.prefix}Low))"
    if high:
        text = f"vmin{quad}_{kind}({text}, vdup{quad}_n_{kind}({stage.prefix}High))"
    if lanes == (16 if quad else 8):
        return f"vst1{quad}_{kind}({to}, {text});", []
    if not quad:
        text = f"vcombine_{kind}({text}, vdup_n_{kind}(0))"
    if not unsigned:
        text = f"vreinterpretq_u8_s8({text})"
    return f"store_part_bytes_neon<{lanes}>({to}, {text});", [_STORE_PART]


def store_bytes(
    values: Sequence[str], where: str, stage: OutputStage, part: int, zero: str = "kZero"
) -> tuple[list[str], list[Microkernel]]:
    """See integers.StoreBytes; four vectors at a time, then two, then one."""
    lines: list[str] = []
    needs: list[Microkernel] = []
    added: str | None = None if stage.narrowing_adds_zero_point else zero
    if zero != "kZero":
        added = f"static_cast<std::int16_t>({zero})"
    for group, at, lanes in stored_together(values, part):
        words = [_words(group[i : i + 2], added) for i in range(0, len(group), 2)]
        line, helpers = _put(words, advanced(where, at), lanes, stage)
        lines.append(line)
        needs += helpers
    return lines, needs


def _load_few(count: int, where: str, kind: str) -> tuple[str, list[Microkernel]]:
    """Up to 8 bytes as a vector of 8, and what loads them."""
    if count == 8:
        return f"vld1_{kind}({where})", []
    text = f"load_few_bytes_neon<{count}>({where})"
    return (text if kind == "u8" else f"vreinterpret_s8_u8({text})"), [_LOAD_FEW]


def _sum_words(own: str, theirs: str, *, pair: bool, near: bool) -> str:
    """(own * factors[0] + theirs * factors[1]) / 2^kShift, rounded: eight lanes, or four."""
    low = f"vmull_laneq_s16(vget_low_s16({own}), factors, 0)"
    low = f"vmlal_laneq_s16({low}, vget_low_s16({theirs}), factors, 1)"
    high = f"vmull_high_laneq_s16({own}, factors, 0)"
    high = f"vmlal_high_laneq_s16({high}, {theirs}, factors, 1)"
    low = f"vqrshrn_n_s32({low}, kShift)" if near else f"vqmovn_s32(vrshrq_n_s32({low}, kShift))"
    if not pair:
        return f"vcombine_s16({low}, vdup_n_s16(0))"
    if near:
        return f"vqrshrn_high_n_s32({low}, {high}, kShift)"
    return f"vqmovn_high_s32({low}, vrshrq_n_s32({high}, kShift))"


def store_sums(
    values: Sequence[str], other: str, where: str, stage: OutputStage, part: int
) -> tuple[list[str], list[Microkernel]]:
    """See integers.StoreSums; products of 16 bits, both sides less their zero points."""
    added = stage.addition
    assert added is not None
    result, kind = added.result, "u8" if added.kind is DType.U8 else "s8"
    lines = [
        "const int16x8_t factors = vsetq_lane_s16(kMb, vdupq_n_s16(kMa), 1);",
        "const int16x8_t lower = vdupq_n_s16(kLow - kZero);",
        "const int16x8_t upper = vdupq_n_s16(kHigh - kZero);",
    ]
    needs: list[Microkernel] = []
    for number, (group, at, lanes) in enumerate(stored_together(values, part)):
        to, source = (advanced(p, at) for p in (where, other))
        if lanes == 16:
            lines.append(f"const auto other{number} = vld1q_{kind}({source});")
        words = []
        for half in range(0, len(group), 2):
            own, theirs = f"own{number}_{half}", f"theirs{number}_{half}"
            bounded = f"vmaxq_s16(vminq_s16({_words(group[half : half + 2], None)}, upper), lower)"
            lines.append(f"const int16x8_t {own} = {bounded};")
            if lanes == 16 and half:
                less = f"vsubl_high_{kind}(other{number}, vdupq_n_{kind}(kOtherZero))"
            else:
                bytes_ = f"vget_low_{kind}(other{number})"
                if lanes != 16:
                    from_ = advanced(source, 4 * half)
                    bytes_, helper = _load_few(min(8, lanes - 4 * half), from_, kind)
                    needs += helper
                less = f"vsubl_{kind}({bytes_}, vdup_n_{kind}(kOtherZero))"
            less = less if kind == "s8" else f"vreinterpretq_s16_u16({less})"
            lines.append(f"const int16x8_t {theirs} = {less};")
            pair = half + 1 < len(group)
            words.append(_sum_words(own, theirs, pair=pair, near=added.near))
            if not result.narrowing_adds_zero_point:
                words[-1] = f"vqaddq_s16({words[-1]}, vdupq_n_s16(kSumZero))"
        line, helpers = _put(words, to, lanes, result)
        lines.append(line)
        needs += helpers
    return lines, needs


def add_bytes(kind: DType) -> tuple[list[str], list[str]]:
    """See integers.AddBytes; 16 bytes at a time."""
    s = "u8" if kind is DType.U8 else "s8"
    lines = ["const int32x4_t start = vdupq_n_s32(kStart);"]
    for name in "ab":
        lines.append(f"const auto {name}_bytes = vld1q_{s}({name} + i);")
        for index, half in enumerate((f"vmovl_{s}(vget_low_{s}({name}_bytes))",
                                      f"vmovl_high_{s}({name}_bytes)")):  # fmt: skip
            value = f"vreinterpretq_s16_u16({half})" if s == "u8" else half
            lines.append(f"const int16x8_t {name}{index} = {value};")
    values: list[str] = []
    for index in range(2):
        for half, suffix in (("vget_low_s16({})", ""), ("{}", "_high")):
            total = "start"
            for name, factor in (("a", "kMa"), ("b", "kMb")):
                words = half.format(f"{name}{index}")
                total = f"vmlal{suffix}_n_s16({total}, {words}, {factor})"
            values.append(f"total{len(values)}")
            lines.append(f"const int32x4_t {values[-1]} = vshrq_n_s32({total}, kShift);")
    return lines, values


SPELL = {
    **INTEGERS_OF_BOTH,
    "load_i8": "vmovl_s16(vget_low_s16(vmovl_s8(vld1_s8({0}))))",
    "load_u8": "vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vld1_u8({0})))))",
    "to_int": "vcvtnq_s32_f32({0})",
    "at_least": "vmaxnmq_f32({0}, {1})",
}


def _integers(loop: DepthLoop, group: int, stage: float, forms: tuple[DepthwiseForm, ...]) -> Int8:
    return Int8(
        vector="int32x4_t",
        group=group,
        element=DType.I8,
        broadcast="",
        load_w="",
        dot="",
        load="vld1q_s32({0})",
        store="vst1q_s32({0}, {1})",
        set1="vdupq_n_s32({0})",
        fields=("multiplier", "down"),
        shift_left_fields=("multiplier", "down", "left"),
        rescale=RESCALE,
        shift_left_rescale=SHIFT_LEFT_RESCALE,
        store_bytes=store_bytes,
        store_sums=store_sums,
        add_bytes=add_bytes,
        table_row=_TABLE_ROW,
        rows_at_once=4,
        byte_lanes=16,
        spell=SPELL,
        depth_loop=loop,
        depthwise=forms,
        narrowing_adds_zero_point=True,
        adds_in_16_bits=isinstance(loop, MultiplyLoop),
        requantize_instructions=stage,
    )


def multiplies() -> Int8:
    """Products of 8 bits in 16, added in pairs to 32 (smull, smlal2, sadalp)."""
    return _integers(MultiplyLoop(), 8, 10.0, (MultiplyForm(),))


def dot_products() -> Int8:
    """Products of four by four lanes (sdot)."""
    return _integers(DotLoop(), 4, 5.0, (DotForm(),))


def matrix_products() -> Int8:
    """Products of two pixels by two channels (smmla), and sdot for depthwise convolutions."""
    return _integers(MatrixLoop(), 8, 6.5, (DotForm(),))
