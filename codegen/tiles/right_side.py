"""The right side of a product of two run-time tensors, copied into panels as weights are packed."""

from __future__ import annotations

from mdlc.codegen.code import Microkernel
from mdlc.codegen.isa.dialect import Dialect
from mdlc.codegen.tiles.formula import element_literal
from mdlc.codegen.tiles.transpose import transpose_band, transposes

_ROWS = """\
// packed[k][n] = b[k][n] for kUsed columns, zeros up to kWidth: a panel of the right side.
template <int kUsed, int kWidth>
inline void @name(const @e* b, std::ptrdiff_t step, std::ptrdiff_t depth, @e* packed) {
  for (std::ptrdiff_t k = 0; k < depth; ++k) {
    for (int n = 0; n < kUsed; ++n) packed[n] = b[n];
    for (int n = kUsed; n < kWidth; ++n) packed[n] = @z;
    b += step;
    packed += kWidth;
  }
}
"""
_COLUMNS = """\
// packed[k][n] = b[n][k] for kUsed columns, zeros up to kWidth: a panel of the right side.
template <int kUsed, int kWidth>
inline void @name(const @e* b, std::ptrdiff_t step, std::ptrdiff_t depth, @e* packed) {
  std::ptrdiff_t k = 0;
@vectors  for (; k < depth; ++k) {
    for (int n = 0; n < kUsed; ++n) packed[n] = b[n * step];
    ++b;
    packed += kWidth;
  }
  for (; kUsed < kWidth && k > 0; --k) {
    packed -= kWidth;
    for (int n = kUsed; n < kWidth; ++n) packed[n] = @z;
  }
}
"""
_VECTORS = """\
  if (kUsed >= @l) {
    for (; k + @l <= depth; k += @l) {
      @transpose(b, step, packed, kWidth, kUsed);
      b += @l;
      packed += @l * kWidth;
    }
  }
"""


def pack_rows(isa: Dialect) -> Microkernel:
    """pack_rows_f32_neon<used, width>(b, step, depth, packed): rows of the depth, `step` apart."""
    return _pack("pack_rows", _ROWS, isa)


def pack_columns(isa: Dialect) -> Microkernel:
    """The same of columns that lie one behind the other, `step` apart: transposed on the way."""
    if not transposes(isa):
        return _pack("pack_columns", _COLUMNS.replace("@vectors", ""), isa)
    band = transpose_band(isa)
    vectors = _VECTORS.replace("@transpose", band.name).replace("@l", str(isa.lanes))
    return _pack("pack_columns", _COLUMNS.replace("@vectors", vectors), isa, (band,))


def _pack(kind: str, text: str, isa: Dialect, needs: tuple[Microkernel, ...] = ()) -> Microkernel:
    name = f"{kind}_{isa.kind}_{isa.suffix}"
    zero = element_literal(0.0, isa.dtype)
    text = text.replace("@name", name).replace("@e", isa.element).replace("@z", zero)
    return Microkernel(name, text, needs, ("cstddef",))
