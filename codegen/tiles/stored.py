"""Elements that are only stored (bfloat16, float8, int4, ...) to and from numbers, in C++17."""

from __future__ import annotations

from mdlc.codegen.code import Microkernel
from mdlc.codegen.tiles.half import from_half, to_half
from mdlc.compiler.small_floats import SMALL_FLOATS, SmallFloat, Specials
from mdlc.compiler.types import DType

STORED_NAMES = {
    DType.BF16: "Bfloat16",
    DType.F8E4M3FN: "Float8E4M3FN",
    DType.F8E4M3FNUZ: "Float8E4M3FNUZ",
    DType.F8E5M2: "Float8E5M2",
    DType.F8E5M2FNUZ: "Float8E5M2FNUZ",
    DType.F8E8M0: "Float8E8M0",
    DType.F6E2M3: "Float6E2M3",
    DType.F6E3M2: "Float6E3M2",
    DType.F4E2M1: "Float4E2M1",
    DType.I4: "Int4",
    DType.U4: "Uint4",
    DType.I2: "Int2",
    DType.U2: "Uint2",
}
ROUND_MODES = ("up", "down", "nearest")

_FROM_BFLOAT16 = """\
// The value of a bfloat16, the upper half of a float, given as its bits.
inline float Bfloat16ToFloat(std::uint16_t upper) {
  const std::uint32_t bits = static_cast<std::uint32_t>(upper) << 16U;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
"""
_TO_BFLOAT16 = """\
// The bits of the bfloat16 nearest to a value, ties to even.
inline std::uint16_t FloatToBfloat16(float value) {
  if (std::isnan(value)) return std::signbit(value) ? 0xFFC0U : 0x7FC0U;
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16U) & 1U)) >> 16U);
}
"""
_FROM_SMALL = """\
// The value of a @format, given as its bits.
inline float @nameToFloat(std::uint8_t bits) {
  const int code = bits & @magnitudes;
  const int exponent = code >> @mantissa;
  const int mantissa = code & @mantissas;
  @specialsconst float magnitude =
      exponent == 0 ? std::ldexp(static_cast<float>(mantissa), @lowest)
                    : std::ldexp(static_cast<float>(mantissa + @one), exponent + @lowest - 1);
  return (bits & @sign) != 0 ? -magnitude : magnitude;
}
"""
_TO_SMALL = """\
// The bits of the @format nearest to a value, ties to even; @beyond.
inline std::uint8_t @to(double value) {
  @nanconst int sign = std::signbit(value) ? @sign : 0;
  const double magnitude = std::fabs(value);
  @infiniteint exponent = 0;
  std::frexp(magnitude, &exponent);
  // A number is `steps` units of the last place: subnormal below @one of them.
  const bool normal = magnitude > 0.0 && exponent - 1 > @smallest;
  const int above = normal ? exponent - 1 - @smallest : 0;
  const double steps = std::nearbyint(std::ldexp(magnitude, -(above + @lowest)));
  // Rounded up to twice the implicit one, it is the next exponent's.
  int code = (above << @mantissa) + static_cast<int>(steps);
  if (code > @largest) code = @overflow;
  return static_cast<std::uint8_t>(@result);
}
"""
_FROM_SCALE = """\
// The value of a float8 E8M0, a power of two, given as its bits.
inline float Float8E8M0ToFloat(std::uint8_t bits) {
  return bits == 255 ? std::numeric_limits<float>::quiet_NaN() : std::ldexp(1.0F, bits - 127);
}
"""
_TO_SCALE = """\
// The bits of the float8 E8M0, a power of two, of a value, rounded @mode; the sign is lost.
inline std::uint8_t @to(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const std::uint32_t exponent = (bits >> 23U) & 0xFFU;
  if (exponent == 255U) return 255;
  return static_cast<std::uint8_t>(@rounded);
}
"""
_FROM_INT = """\
// The value of @article @bits-bit integer in the lowest bits of a byte.
inline int @nameToInt(std::uint8_t bits) {
  return @value;
}
"""
_TO_INT = """\
// The lowest @bits bits of an integer.
inline std::uint8_t IntTo@name(std::int64_t value) {
  return static_cast<std::uint8_t>(value & @mask);
}
"""


def from_stored(dtype: DType) -> Microkernel:
    """A function from a stored element to its value: a float, an int for integers."""
    if dtype is DType.F16:
        return from_half()
    name = STORED_NAMES[dtype]
    if dtype is DType.BF16:
        return Microkernel("Bfloat16ToFloat", _FROM_BFLOAT16, includes=("cstdint", "cstring"))
    if dtype is DType.F8E8M0:
        includes = ("cmath", "cstdint", "limits")
        return Microkernel("Float8E8M0ToFloat", _FROM_SCALE, includes=includes)
    form = SMALL_FLOATS.get(dtype)
    if form is None:
        mask, sign = (1 << dtype.bits) - 1, 1 << (dtype.bits - 1)
        signed = dtype in (DType.I4, DType.I2)
        value = f"((bits & {mask}) ^ {sign}) - {sign}" if signed else f"bits & {mask}"
        text = _filled(_FROM_INT, name=name, bits=dtype.bits, value=value,
                       article="a signed" if signed else "an unsigned")  # fmt: skip
        return Microkernel(f"{name}ToInt", text, includes=("cstdint",))
    specials = ""
    nan = "std::numeric_limits<float>::quiet_NaN()"
    if form.specials is Specials.IEEE:
        infinity = "std::numeric_limits<float>::infinity()"
        specials = (
            f"if (code > {form.infinity}) return {nan};\n  if (code == {form.infinity}) "
            f"return (bits & {form.sign}) != 0 ? -{infinity} : {infinity};\n  "
        )
    elif form.specials is Specials.NAN:
        specials = f"if (code == {form.nan}) return {nan};\n  "
    elif form.specials is Specials.UNSIGNED_ZERO:
        specials = f"if (bits == {form.nan}) return {nan};\n  "
    includes = ("cmath", "cstdint", *(("limits",) if specials else ()))
    text = _filled(
        _FROM_SMALL, name=name, format=_in_words(dtype), specials=specials, sign=form.sign,
        magnitudes=form.sign - 1, mantissas=(1 << form.mantissa) - 1, mantissa=form.mantissa,
        one=1 << form.mantissa, lowest=1 - form.bias - form.mantissa,
    )  # fmt: skip
    return Microkernel(f"{name}ToFloat", text, includes=includes)


def to_stored(dtype: DType, saturate: bool = True, round_mode: str = "up") -> Microkernel:
    """A function from a number to a stored element.

    Args:
        saturate: of 8-bit floats, whether what is too large becomes the largest finite number.
        round_mode: of E8M0, one of ROUND_MODES.
    """
    if dtype is DType.F16:
        return to_half()
    name = STORED_NAMES[dtype]
    if dtype is DType.BF16:
        includes = ("cmath", "cstdint", "cstring")
        return Microkernel("FloatToBfloat16", _TO_BFLOAT16, includes=includes)
    if dtype is DType.F8E8M0:
        condition = {
            "up": "(bits & 0x7FFFFFU) != 0U",
            "down": "",
            # A half is rounded up, but for the smallest power of two (ONNX's own definition).
            "nearest": "(bits & 0x7FFFFFU) + (exponent > 0U ? 1U : 0U) > 0x400000U",
        }[round_mode]
        condition += " && exponent < 254U" if saturate else ""
        rounded = f"exponent + ({condition} ? 1U : 0U)" if round_mode != "down" else "exponent"
        to = f"FloatTo{name}{round_mode.title()}{'' if saturate else 'Unbounded'}"
        text = _filled(_TO_SCALE, to=to, mode=f"({round_mode})", rounded=rounded)
        return Microkernel(to, text, includes=("cstdint", "cstring"))
    form = SMALL_FLOATS.get(dtype)
    if form is None:
        text = _filled(_TO_INT, name=name, bits=dtype.bits, mask=(1 << dtype.bits) - 1)
        return Microkernel(f"IntTo{name}", text, includes=("cstdint",))
    saturate = saturate or form.specials is Specials.NONE
    over = form.largest if saturate else form.infinity if form.infinity is not None else form.nan
    nan = _nan_of(form)
    to = f"DoubleTo{name}{'' if saturate else 'Unbounded'}"
    # There is no minus zero, and NaN has no sign, where zero has none.
    result = "sign | code"
    if form.specials is Specials.UNSIGNED_ZERO:
        result = f"code == 0 || code == {form.sign} ? code : sign | code"
    text = _filled(
        _TO_SMALL, to=to, format=_in_words(dtype), nan=nan, sign=form.sign,
        beyond="what is too large becomes the largest" if saturate
        else "what is too large becomes infinity, or NaN",
        infinite=f"if (std::isinf(value)) return static_cast<std::uint8_t>("
        f"{'sign | ' if over != form.sign else ''}{over});\n  ",
        one=1 << form.mantissa, smallest=1 - form.bias, mantissa=form.mantissa,
        lowest=1 - form.bias - form.mantissa, largest=form.largest, overflow=over, result=result,
    )  # fmt: skip
    return Microkernel(to, text, includes=("cmath", "cstdint"))


def _nan_of(form: SmallFloat) -> str:
    """What becomes of a NaN: its sign stays where there is a place for it."""
    if form.nan is None:
        return "if (std::isnan(value)) return 0;\n  "
    if form.specials is Specials.UNSIGNED_ZERO:
        return f"if (std::isnan(value)) return {form.nan};\n  "
    both = f"std::signbit(value) ? {form.sign | form.nan} : {form.nan}"
    return f"if (std::isnan(value)) return {both};\n  "


def argument(dtype: DType, value: str) -> str:
    """A number as the function of `to_stored` takes it."""
    form = SMALL_FLOATS.get(dtype)
    kind = "std::int64_t" if form is None else "double"
    if dtype in (DType.BF16, DType.F8E8M0, DType.F16):
        kind = "float"
    return f"static_cast<{kind}>({value})"


def _in_words(dtype: DType) -> str:
    name = STORED_NAMES[dtype]
    digits = name.removeprefix("Float")
    return f"float{digits[0]} {digits[1:]}"


def _filled(text: str, **values: object) -> str:
    for name in sorted(values, key=len, reverse=True):
        text = text.replace(f"@{name}", str(values[name]))
    return text
