"""8-bit integers on AArch64: rescaling, narrowing and what element-wise layers need.

Rescaling is sqdmulh and srshl: the upper half of the doubled product is a floor, and a rounding
shift of a floor rounds once (compiler/fixed_point.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from mdlc.codegen.aarch64_depthwise import DotForm, MultiplyForm
from mdlc.codegen.aarch64_dots import DotLoop, MatrixLoop, MultiplyLoop
from mdlc.codegen.byte_depthwise import DepthwiseForm
from mdlc.codegen.integers import DepthLoop, Finish, Integers
from mdlc.codegen.kernel import Microkernel
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
WIDE_RESCALE = Microkernel(
    "rescale_wide_i32_neon",
    """\
// (total * 2^left * multiplier / 2^31 + 2^(-down - 1)) >> -down, the first shift saturating.
inline int32x4_t rescale_wide_i32_neon(int32x4_t total, int32x4_t multiplier, int32x4_t down,
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
  std::uint8_t bytes[16];
  vst1q_u8(bytes, v);
  std::memcpy(p, bytes, kCount);
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


def store_bytes(
    values: Sequence[str], where: str, finish: Finish, part: int, zero: str = "kZero"
) -> tuple[list[str], list[Microkernel]]:
    """See integers.StoreBytes; four vectors at a time, then two, then one."""
    lines: list[str] = []
    needs: list[Microkernel] = []
    unsigned = finish.target is DType.U8
    kind, narrow = ("u8", "vqmovun") if unsigned else ("s8", "vqmovn")
    added: str | None = zero
    if finish.rising:
        # Saturated to 0 to 255, then 128 less: a flip of the sign.
        narrow, added = "vqmovun", None
    if zero != "kZero":
        added = f"static_cast<std::int16_t>({zero})"
    at = 0
    while at < len(values):
        left = len(values) - at
        count = 4 if left >= 3 else left
        group = values[at : at + count]
        full = 16 * len(group) if count == 4 else 8
        text = f"{narrow}_s16({_words(group[:2], added)})"
        quad = "q" if len(group) > 2 else ""
        if quad:
            text = f"{narrow}_high_s16({text}, {_words(group[2:], added)})"
        if finish.rising:
            text = f"vreinterpret{quad}_s8_u8(veor{quad}_u8({text}, vdup{quad}_n_u8(128)))"
        low, high = finish.bounded
        if low:
            text = f"vmax{quad}_{kind}({text}, vdup{quad}_n_{kind}(kLow))"
        if high:
            text = f"vmin{quad}_{kind}({text}, vdup{quad}_n_{kind}(kHigh))"
        last = at + len(group) == len(values)
        lanes = 4 * len(group) - (4 - part if part and last else 0)
        full = 16 if quad else 8
        to = f"{where} + {4 * at}" if at else where
        if lanes == full:
            lines.append(f"vst1{quad}_{kind}({to}, {text});")
        else:
            if not quad:
                text = f"vcombine_{kind}({text}, vdup_n_{kind}(0))"
            if not unsigned:
                text = f"vreinterpretq_u8_s8({text})"
            lines.append(f"store_part_bytes_neon<{lanes}>({to}, {text});")
            needs.append(_STORE_PART)
        at += len(group)
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
    "load_i8": "vmovl_s16(vget_low_s16(vmovl_s8(vld1_s8({0}))))",
    "load_u8": "vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vld1_u8({0})))))",
    "add": "vaddq_s32({0}, {1})",
    "sub": "vsubq_s32({0}, {1})",
    "to_float": "vcvtq_f32_s32({0})",
    "to_int": "vcvtnq_s32_f32({0})",
    "at_least": "vmaxnmq_f32({0}, {1})",
    "bytes_i8": "int8x16_t",
    "bytes_u8": "uint8x16_t",
    "load_bytes_i8": "vld1q_s8({0})",
    "load_bytes_u8": "vld1q_u8({0})",
    "put_bytes_i8": "vst1q_s8({0}, {1})",
    "put_bytes_u8": "vst1q_u8({0}, {1})",
    "max_i8": "vmaxq_s8({0}, {1})",
    "max_u8": "vmaxq_u8({0}, {1})",
}


def _integers(
    loop: DepthLoop, group: int, finish: float, forms: tuple[DepthwiseForm, ...]
) -> Integers:
    return Integers(
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
        wide_fields=("multiplier", "down", "left"),
        rescale=RESCALE,
        wide_rescale=WIDE_RESCALE,
        store_bytes=store_bytes,
        add_bytes=add_bytes,
        table_row=_TABLE_ROW,
        rows_at_once=4,
        byte_lanes=16,
        spell=SPELL,
        depth_loop=loop,
        depthwise=forms,
        rises=True,
        adds_in_16_bits=isinstance(loop, MultiplyLoop),
        finish_instructions=finish,
    )


def multiplies() -> Integers:
    """Products of 8 bits in 16, added in pairs to 32 (smull, smlal2, sadalp)."""
    return _integers(MultiplyLoop(), 8, 10.0, (MultiplyForm(),))


def dot_products() -> Integers:
    """Products of four by four lanes (sdot)."""
    return _integers(DotLoop(), 4, 5.0, (DotForm(),))


def matrix_products() -> Integers:
    """Products of two pixels by two channels (smmla), and sdot for depthwise convolutions."""
    return _integers(MatrixLoop(), 8, 6.5, (DotForm(),))
