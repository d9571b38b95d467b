"""8-bit integers on AVX2 and AVX-512: products of pairs, or of four with VNNI.

vpmaddubsw saturates and is not used: without VNNI, activations are widened to 16 bits once and
pairs are multiplied by vpmaddwd, which is exact. With VNNI, vpdpbusd takes unsigned activations
and signed weights and does not saturate.
"""

from __future__ import annotations

from collections.abc import Sequence

from mdlc.codegen.code import Microkernel, advanced
from mdlc.codegen.isa.int8 import SUM_START, AddBytes, Int8, StoreBytes, StoreSums
from mdlc.codegen.isa.int8_result import OutputStage
from mdlc.codegen.isa.x86.int8_depthwise import PairForm, VnniForm
from mdlc.codegen.isa.x86.int8_dot import VnniLoop
from mdlc.compiler.types import DType


def rescale(width: int, *, shift_left: bool) -> Microkernel:
    """The upper half of 32x32-bit products of even and odd lanes, and a shift with rounding."""
    v, p = f"__m{width}i", "_mm" if width == 128 else f"_mm{width}"
    suffix = {128: "sse", 256: "avx2", 512: "avx512"}[width]
    name = f"rescale_{'shl_' if shift_left else ''}i32_{suffix}"
    more = f", {v} limit, {v} left" if shift_left else ""
    clamp = (
        f"""  const {v} least = {p}_xor_si{width}(limit, {p}_set1_epi32(-1));
  total = {p}_sllv_epi32({p}_max_epi32({p}_min_epi32(total, limit), least), left);
"""
        if shift_left
        else ""
    )
    if width == 512:
        clamp = (
            clamp.replace("_mm512_max_epi32(", "_mm512_maskz_max_epi32(0xFFFF, ")
            .replace("_mm512_min_epi32(", "_mm512_maskz_min_epi32(0xFFFF, ")
            .replace("_mm512_sllv_epi32(", "_mm512_maskz_sllv_epi32(0xFFFF, ")
        )
        odd_total = "_mm512_maskz_srli_epi64(0xFF, total, 32)"
        odd_multiplier = "_mm512_maskz_srli_epi64(0xFF, multiplier, 32)"
        multiply = "_mm512_maskz_mul_epi32(0xFF, "
        join = "_mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_DDBB)"
        shift = "_mm512_maskz_srav_epi32(0xFFFF, "
    else:
        odd_total, odd_multiplier = (f"{p}_srli_epi64({x}, 32)" for x in ("total", "multiplier"))
        multiply = f"{p}_mul_epi32("
        join = f"{p}_blend_epi32({p}_shuffle_epi32(even, 0xF5), odd, 0xAA)"
        shift = f"{p}_srav_epi32("
    formula = "total * multiplier"
    saturating = " after total <<= left, saturating" if shift_left else ""
    text = f"""\
// ({formula} / 2^32{saturating} + rounding) >> right.
inline {v} {name}({v} total, {v} multiplier, {v} rounding, {v} right{more}) {{
{clamp}  const {v} even = {multiply}total, multiplier);
  const {v} odd = {multiply}{odd_total}, {odd_multiplier});
  const {v} high = {join};
  return {shift}{p}_add_epi32(high, rounding), right);
}}
"""
    return Microkernel(name, text)


def _narrow(width: int, unsigned: bool) -> Microkernel:
    kind = "u8" if unsigned else "i8"
    if width == 512:
        name = f"narrow_{kind}_avx512"
        value = (
            "_mm512_maskz_cvtusepi32_epi8(0xFFFF, _mm512_maskz_max_epi32(0xFFFF, v, "
            "_mm512_setzero_si512()))"
            if unsigned
            else "_mm512_maskz_cvtsepi32_epi8(0xFFFF, v)"
        )
        body = f"  return {value};\n"
        vector = "__m512i"
    else:
        name, vector = f"narrow_{kind}_avx2", "__m256i"
        pack = "packus" if unsigned else "packs"
        body = f"""\
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  return _mm_{pack}_epi16(words, words);
"""
    head = f"// Lanes of 32 bits as {kind}, saturated.\n"
    text = f"{head}inline __m128i {name}({vector} v) {{\n{body}}}\n"
    return Microkernel(name, text)


def _together(left: int, width: int, *, part: bool) -> int:
    """How many of the vectors that are left are narrowed together."""
    if width == 512:  # the last one may be a part, or missing: stores are masked
        return min(left, 4) if left >= 3 else 1
    whole = left - part
    return 4 if whole >= 4 else 2 if whole >= 2 else 1


def _narrow_more(width: int, count: int, unsigned: bool) -> Microkernel:
    """Two (of 256 bits), three or four vectors of i32 as bytes, by packs and one permutation."""
    kind, v, p = "u8" if unsigned else "i8", f"__m{width}i", f"_mm{width}"
    name = f"narrow{count}_{kind}_{'avx512' if width == 512 else 'avx2'}"
    pack, blocks = "packus" if unsigned else "packs", width // 128
    # Packs stay inside 128 bits: dword 4 b + i is vector i's, and goes to i * blocks + b.
    order = ", ".join(str(4 * b + i) for i in range(4) for b in range(blocks))
    arguments = [f"v{i}" for i in range(count)]
    second = f"{p}_packs_epi32(v2, v{count - 1})" if count > 2 else "words"
    permuted = f"{p}_permutevar8x32_epi32(bytes, order)"
    if width == 512:
        permuted = "_mm512_maskz_permutexvar_epi32(0xFFFF, order, bytes)"
    result = permuted if count > 2 else f"_mm256_castsi256_si128({permuted})"
    text = f"""\
// Lanes of 32 bits as {kind}, saturated, one vector behind the other.
inline {v if count > 2 else "__m128i"} {name}({", ".join(f"{v} {a}" for a in arguments)}) {{
  const {v} words = {p}_packs_epi32(v0, v1);
  const {v} bytes = {p}_{pack}_epi16(words, {second});
  const {v} order = {p}_setr_epi32({order});
  return {result};
}}
"""
    return Microkernel(name, text)


def _part() -> Microkernel:
    text = """\
// Writes the first kCount bytes of v to p.
template <int kCount>
inline void store_part_i8_avx2(void* p, __m128i v) {
  unsigned char bytes[16];
  _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes), v);
  std::memcpy(p, bytes, kCount);
}
"""
    return Microkernel("store_part_i8_avx2", text, includes=("cstring",))


def _store_bytes(width: int) -> StoreBytes:
    lanes = width // 32

    def store(
        values: Sequence[str], where: str, stage: OutputStage, part: int, zero: str = "kZero"
    ) -> tuple[list[str], list[Microkernel]]:
        unsigned = stage.target is DType.U8
        needs: list[Microkernel] = []
        lines: list[str] = []
        sign = "epu8" if unsigned else "epi8"
        if not stage.zero_point_folded:
            values = [
                f"_mm{width}_add_epi32({value}, _mm{width}_set1_epi32({zero}))" for value in values
            ]
        at = 0
        while at < len(values):
            count = _together(len(values) - at, width, part=bool(part))
            group = values[at : at + count]
            to = advanced(where, at * lanes)
            last = part and at + count == len(values)
            kept = lanes * (count - 1) + part if last else lanes * count
            helper = (
                _narrow(width, unsigned) if count == 1 else _narrow_more(width, count, unsigned)
            )
            needs.append(helper)
            nbytes = width // 8 if count > 2 else 16  # bytes of the narrowed vector
            q, v = ("_mm", "__m128i") if nbytes == 16 else (f"_mm{width}", f"__m{width}i")
            text = f"{helper.name}({', '.join(group)})"
            for name, used in (("max", stage.bounded[0]), ("min", stage.bounded[1])):
                if used:
                    number = f"{stage.prefix}{'Low' if name == 'max' else 'High'}"
                    bound = f"{q}_set1_epi8(static_cast<char>({number}))"
                    text = f"{q}_{name}_{sign}({text}, {bound})"
            if kept < nbytes and width == 512:
                mask = f"(1{'ULL' if nbytes == 64 else 'U'} << {kept}) - 1U"
                lines.append(f"{q}_mask_storeu_epi8({to}, {mask}, {text});")
            elif last:
                needs.append(_part())
                lines.append(f"store_part_i8_avx2<{kept}>({to}, {text});")
            else:
                size = "storel_epi64" if kept == 8 else f"storeu_si{8 * nbytes}"
                lines.append(f"{q}_{size}(reinterpret_cast<{v}*>({to}), {text});")
            at += count
        return lines, needs

    return store


_LOAD_PART = Microkernel(
    "load_part_i8_avx2",
    """\
// kCount bytes at p, and zeros.
template <int kCount>
inline __m128i load_part_i8_avx2(const void* p) {
  unsigned char bytes[16] = {};
  std::memcpy(bytes, p, kCount);
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
}
""",
    includes=("cstring",),
)


def _store_sums(width: int, *, vnni: bool) -> StoreSums:
    """Pairs of 16 bits, the own byte and the other, times pairs of multipliers (vpmaddwd)."""
    v, p, lanes = f"__m{width}i", f"_mm{width}", width // 32
    masked = "maskz_{0}(0xFFFF, " if width == 512 else "{0}("

    def call(name: str, *arguments: str) -> str:
        return f"{p}_{masked.format(name)}{', '.join(arguments)})"

    def sums(
        values: Sequence[str], other: str, where: str, stage: OutputStage, part: int
    ) -> tuple[list[str], list[Microkernel]]:
        added = stage.addition
        assert added is not None
        widen = f"cvtep{'u' if added.kind is DType.U8 else 'i'}8_epi32"
        lines = [f"constexpr int kStart = {SUM_START};"]
        names, needs = [], []
        for i, value in enumerate(values):
            at = advanced(other, i * lanes)
            load = "_mm_loadu_si128" if width == 512 else "_mm_loadl_epi64"
            bytes_ = f"{load}(reinterpret_cast<const __m128i*>({at}))"
            if part and i == len(values) - 1:
                bytes_ = f"_mm_maskz_loadu_epi8((1U << {part}) - 1U, {at})"
                if width == 256:
                    bytes_ = f"load_part_i8_avx2<{part}>({at})"
                    needs.append(_LOAD_PART)
            value = call("min_epi32", value, f"{p}_set1_epi32(kHigh)")
            value = call("max_epi32", value, f"{p}_set1_epi32(kLow)")
            upper = call("slli_epi32", call(widen, bytes_), "16")
            pairs = _BLEND_WORDS[width].format(value, upper)
            factors, start = f"{p}_set1_epi32(kMb * 65536 + kMa)", f"{p}_set1_epi32(kStart)"
            if vnni:
                total = f"{p}_dpwssd_epi32({start}, {pairs}, {factors})"
            else:
                total = f"{p}_add_epi32({p}_madd_epi16({pairs}, {factors}), {start})"
            names.append(f"sum{i}")
            lines.append(f"const {v} {names[-1]} = {call('srai_epi32', total, 'kShift')};")
        stored, helpers = _store_bytes(width)(names, where, added.result, part)
        return lines + stored, needs + helpers

    return sums


# The even words of one vector and the odd ones of another.
_BLEND_WORDS = {
    256: "_mm256_blend_epi16({0}, {1}, 0xAA)",
    512: "_mm512_mask_blend_epi16(0xAAAAAAAA, {0}, {1})",
}


def _table_row(width: int) -> Microkernel:
    """16 shuffles by the lower four bits, of which the upper bits choose one."""
    v, p, step = f"__m{width}i", f"_mm{width}", width // 8
    suffix = "avx512" if width == 512 else "avx2"
    every = "0xFFFFFFFFFFFFFFFFULL"
    lines = []
    if width == 512:
        for bit in range(4, 8):
            lines.append(f"const __mmask64 bit{bit} = "
                         f"_mm512_test_epi8_mask(v, _mm512_set1_epi8({_CHARS[bit]}));")  # fmt: skip
    else:
        for bit in range(4, 8):  # to the highest bit, which blending looks at
            shifted = f"_mm256_slli_epi16(v, {7 - bit})" if bit < 7 else "v"
            lines.append(f"const {v} bit{bit} = {shifted};")
    names = []
    for pair in range(8):
        found = []
        for row in (2 * pair, 2 * pair + 1):
            load = f"_mm_loadu_si128({advanced('rows', row)})"
            table = f"_mm256_broadcastsi128_si256({load})"
            if width == 512:
                table = f"_mm512_maskz_broadcast_i32x4(0xFFFF, {load})"
            found.append(table)
        if width == 512:
            first = f"_mm512_maskz_shuffle_epi8({every}, {found[0]}, low)"
            chosen = f"_mm512_mask_shuffle_epi8({first}, bit4, {found[1]}, low)"
        else:
            both = ", ".join(f"_mm256_shuffle_epi8({table}, low)" for table in found)
            chosen = f"_mm256_blendv_epi8({both}, bit4)"
        names.append(f"t{pair}")
        lines.append(f"const {v} {names[-1]} = {chosen};")
    for bit in (5, 6, 7):
        following = []
        for pair in range(len(names) // 2):
            a, b = names[2 * pair : 2 * pair + 2]
            name = f"u{bit}_{pair}"
            chosen = f"_mm256_blendv_epi8({a}, {b}, bit{bit})"
            if width == 512:
                chosen = f"_mm512_mask_blend_epi8(bit{bit}, {a}, {b})"
            lines.append(f"const {v} {name} = {chosen};")
            following.append(name)
        names = following
    body = "\n".join(f"    {line}" for line in lines)
    text = f"""\
// y[i] = table[x[i]] for kCount bytes, x[i] read as an unsigned byte; {step} at a time.
template <int kCount, typename X, typename Y>
inline void table_row_{suffix}(const Y* table, const X* x, Y* y) {{
  const __m128i* rows = reinterpret_cast<const __m128i*>(table);
  int i = 0;
  for (; i <= kCount - {step}; i += {step}) {{
    const {v} v = {p}_loadu_si{width}(reinterpret_cast<const {v}*>(x + i));
    const {v} low = {p}_and_si{width}(v, {p}_set1_epi8(15));
{body}
    {p}_storeu_si{width}(reinterpret_cast<{v}*>(y + i), {names[0]});
  }}
  for (; i < kCount; ++i) y[i] = table[static_cast<unsigned char>(x[i])];
}}
"""
    return Microkernel(f"table_row_{suffix}", text)


_CHARS = {4: "16", 5: "32", 6: "64", 7: "static_cast<char>(128)"}


def _add_bytes(width: int) -> AddBytes:
    v, p = f"__m{width}i", f"_mm{width}"
    blend = _BLEND_WORDS[width]

    def add(kind: DType) -> tuple[list[str], list[str]]:
        load = _spell(width)[f"load_{kind.value}"]
        shifted = f"{p}_slli_epi32({load.format('b + i')}, 16)"
        if width == 512:
            shifted = shifted.replace("slli_epi32(", "maskz_slli_epi32(0xFFFF, ")
        factors = "kMb * 65536 + kMa"
        total = f"{p}_madd_epi16(pairs, {p}_set1_epi32({factors}))"
        total = f"{p}_add_epi32({total}, {p}_set1_epi32(kStart))"
        shift = f"{p}_srai_epi32({total}, kShift)"
        if width == 512:
            shift = shift.replace("srai_epi32(", "maskz_srai_epi32(0xFFFF, ")
        return [
            f"const {v} pairs = {blend.format(load.format('a + i'), shifted)};",
            f"const {v} total = {shift};",
        ], ["total"]

    return add


def _spell(width: int) -> dict[str, str]:
    p, v = f"_mm{width}", f"__m{width}i"
    mask = "0xFFFF, " if width == 512 else ""
    maskz = "maskz_" if width == 512 else ""
    load = "_mm_loadu_si128" if width == 512 else "_mm_loadl_epi64"
    bytes_ = f"{load}(reinterpret_cast<const __m128i*>({{0}}))"
    found = {
        "load_i8": f"{p}_{maskz}cvtepi8_epi32({mask}{bytes_})",
        "load_u8": f"{p}_{maskz}cvtepu8_epi32({mask}{bytes_})",
        "add": f"{p}_add_epi32({{0}}, {{1}})",
        "sub": f"{p}_sub_epi32({{0}}, {{1}})",
        "to_float": f"{p}_{maskz}cvtepi32_ps({mask}{{0}})",
        "to_int": f"{p}_{maskz}cvtps_epi32({mask}{{0}})",
        "at_least": f"{p}_{maskz}max_ps({mask}{{0}}, {{1}})",
        "max_i8": f"{p}_max_epi8({{0}}, {{1}})",
        "max_u8": f"{p}_max_epu8({{0}}, {{1}})",
    }
    for kind in ("i8", "u8"):
        found[f"bytes_{kind}"] = v
        found[f"load_bytes_{kind}"] = f"{p}_loadu_si{width}(reinterpret_cast<const {v}*>({{0}}))"
        found[f"put_bytes_{kind}"] = f"{p}_storeu_si{width}(reinterpret_cast<{v}*>({{0}}), {{1}})"
    if width == 512:
        found["store_part"] = "_mm512_mask_storeu_epi32({0}, (1U << {2}) - 1U, {1})"
    return found


def int8(width: int, *, vnni: bool) -> Int8:
    """The 8-bit integers of vectors of 256 or 512 bits."""
    v, p = f"__m{width}i", f"_mm{width}"
    half = "__m256i" if width == 512 else "__m128i"
    half_load = "_mm256_loadu_si256" if width == 512 else "_mm_loadu_si128"
    load = f"{p}_loadu_si{width}(reinterpret_cast<const {v}*>({{0}}))"
    group = "load_group({0})"
    common = {
        "vector": v,
        "load": load,
        "store": f"{p}_storeu_si{width}(reinterpret_cast<{v}*>({{0}}), {{1}})",
        "set1": f"{p}_set1_epi32({{0}})",
        "broadcast": f"{p}_set1_epi32({group})",
        "fields": ("multiplier", "rounding", "right"),
        "shift_left_fields": ("multiplier", "rounding", "right", "limit", "left"),
        "rescale": rescale(width, shift_left=False),
        "shift_left_rescale": rescale(width, shift_left=True),
        "store_bytes": _store_bytes(width),
        "store_sums": _store_sums(width, vnni=vnni),
        "add_bytes": _add_bytes(width),
        "table_row": _table_row(width),
        "spell": _spell(width),
        "byte_lanes": width // 8,
        "helpers": () if vnni else (_LOAD_GROUP,),
        "requantize_instructions": 12.0,
    }
    if vnni:
        return Int8(
            group=4,
            element=DType.U8,
            load_w="",
            dot="",
            flip=f"{p}_xor_si{width}({{0}}, {p}_set1_epi32(static_cast<int>(0x80808080U)))",
            depth_loop=VnniLoop(),
            flips_in_copy=True,
            depthwise=tuple(VnniForm(channels, rescale) for channels in (64, 32, 16)),
            **common,  # type: ignore[arg-type]
        )
    return Int8(
        group=2,
        element=DType.I16,
        load_w=f"{p}_cvtepi8_epi16({half_load}(reinterpret_cast<const {half}*>({{0}})))",
        dot=f"{p}_add_epi32({{0}}, {p}_madd_epi16({{1}}, {{2}}))",
        dots_per_fma=0.5,
        dot_instructions=2.0,
        depthwise=(PairForm(512, rescale, None), PairForm(256, rescale, None))
        if width == 512
        else (PairForm(256, rescale, _part()),),
        **common,  # type: ignore[arg-type]
    )


_LOAD_GROUP = Microkernel(
    "load_group",
    """\
// Four neighbouring bytes as one number.
inline int load_group(const void* p) {
  int group;
  std::memcpy(&group, p, sizeof(group));
  return group;
}
""",
    includes=("cstring",),
)
