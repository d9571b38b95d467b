"""Windows in plain C++: where their largest values are, and columns added up into images."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mdlc.codegen.code import C_TYPES, Call, Microkernel, nested, offset, position
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Schedule, Step
from mdlc.codegen.tiles.plain import Plain, PlainKernel, kind, over, sizes
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.col2im import Col2Im
from mdlc.compiler.ops.max_pool_indices import MaxPoolIndices

_LARGEST = """\
// Where the largest value of a window is in its plane: the window starts at (d, h, w), which may be
// outside, and has kD x kH x kW taps kSD, kSH, kSW apart. The first of equals.
template <typename T, int kDepth, int kHeight, int kWidth, int kD, int kH, int kW, int kSD,
          int kSH, int kSW, bool kColumns>
inline std::int64_t largest_at(const T* x, int d, int h, int w) {
  T best = T(0);
  std::int64_t at = -1;
  for (int i = d; i < d + kD * kSD; i += kSD) {
    for (int j = h; j < h + kH * kSH; j += kSH) {
      for (int k = w; k < w + kW * kSW; k += kSW) {
        if (i < 0 || i >= kDepth || j < 0 || j >= kHeight || k < 0 || k >= kWidth) continue;
        const T value = x[(i * kHeight + j) * kWidth + k];
        if (at >= 0 && !(value > best)) continue;
        best = value;
        at = kColumns ? (std::int64_t{k} * kHeight + j) * kDepth + i
                      : (std::int64_t{i} * kHeight + j) * kWidth + k;
      }
    }
  }
  return at < 0 ? 0 : at;
}
"""


def _three(values: Sequence[int], fill: int) -> tuple[int, int, int]:
    """Numbers of three axes, where there are fewer."""
    first, second, third = (fill,) * (3 - len(values)) + tuple(values)
    return first, second, third


class MaxPoolIndicesKernel(PlainKernel):
    """Window by window."""

    name = "max_pool_indices"
    layer = "MaxPoolIndices"
    op = MaxPoolIndices

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        assert isinstance(node.op, MaxPoolIndices)
        return node.type.size * math.prod(node.op.kernel) * 4.0

    def plain(self, step: Step) -> Plain:
        node, op = step.node, step.node.op
        assert isinstance(op, MaxPoolIndices)
        x = node.inputs[0].type
        rank = len(op.kernel)
        # Of a plane with fewer axes, positions count with the axes that it has.
        size, count = _three(x.shape[2:], 1), _three(node.shape[2:], 1)
        strides, pads = _three(op.strides, 1), _three(op.pads[:rank], 0)
        largest = Microkernel("largest_at", _LARGEST, includes=("cstdint",))
        numbers = (kind(node.inputs[0]), *size, *_three(op.kernel, 1), *_three(op.dilations, 1))
        starts = [
            position((trips, variable, stride), fixed=-pad)
            for trips, variable, stride, pad in zip(count, "ijk", strides, pads, strict=True)
        ]
        template = ", ".join(map(str, (*numbers, "true" if op.columns else "false")))
        planes, i0 = x.shape[0] * x.shape[1], "std::int64_t{i0}"
        first = position((planes, i0, math.prod(size)))
        at = f"largest_at<{template}>(from, {', '.join(starts)})"
        found = f"*to++ = {at if first == '0' else f'{first} + {at}'};"
        text = f"""\
const {kind(node.inputs[0])}* from = {offset("x", (planes, i0, math.prod(size)))};
std::int64_t* to = {offset("y", (planes, i0, math.prod(count)))};
{nested(list(zip("ijk", count, strict=True)), found)}"""
        name = f"max_pool_at_{sizes(x.shape)}_{sizes(op.kernel)}_to_{sizes(node.shape)}"
        return Plain(name, over(planes, text), (largest,))


_ADD_UP = """\
// Columns (tap by tap, each window by window) added up into an image.
template <typename T, int kDepth, int kHeight, int kWidth, int kD, int kH, int kW, int kND,
          int kNH, int kNW, int kSD, int kSH, int kSW, int kPD, int kPH, int kPW, int kDD, int kDH,
          int kDW>
inline void add_up(const T* x, T* y) {
  for (int i = 0; i < kDepth * kHeight * kWidth; ++i) y[i] = T(0);
  for (int tap = 0; tap < kD * kH * kW; ++tap) {
    const int a = tap / (kH * kW) * kDD - kPD, b = tap / kW % kH * kDH - kPH;
    const int c = tap % kW * kDW - kPW;
    for (int i = a; i < a + kND * kSD; i += kSD) {
      for (int j = b; j < b + kNH * kSH; j += kSH) {
        for (int k = c; k < c + kNW * kSW; k += kSW) {
          const T value = *x++;
          if (i < 0 || i >= kDepth || j < 0 || j >= kHeight || k < 0 || k >= kWidth) continue;
          T& sum = y[(i * kHeight + j) * kWidth + k];
          sum = static_cast<T>(sum + value);
        }
      }
    }
  }
}
"""


class Col2ImKernel(PlainKernel):
    """Image by image, in the order of the columns."""

    name = "col2im"
    layer = "Col2Im"
    op = Col2Im

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        return super().matches(node, isa) and len(node.shape) <= 5

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        return node.inputs[0].type.size * 3.0

    def plain(self, step: Step) -> Plain:
        node, op = step.node, step.node.op
        assert isinstance(op, Col2Im)
        x = node.inputs[0].type
        rank = len(op.image)
        numbers = (
            C_TYPES[x.dtype], *_three(op.image, 1), *_three(op.kernel, 1),
            *_three(op.windows, 1), *_three(op.strides, 1), *_three(op.pads[:rank], 0),
            *_three(op.dilations, 1),
        )  # fmt: skip
        columns = math.prod(op.kernel) * math.prod(op.windows)
        add = Microkernel("add_up", _ADD_UP, includes=("cstdint",))
        arguments = (
            f"x + std::int64_t{{i0}} * {columns}",
            f"y + std::int64_t{{i0}} * {math.prod(op.image)}",
        )
        name = f"col2im_{sizes(x.shape)}_{sizes(op.kernel)}_to_{sizes(node.shape)}"
        return Plain(name, over(node.shape[0] * node.shape[1], Call(add, arguments, numbers)))


KERNELS = (MaxPoolIndicesKernel(), Col2ImKernel())
