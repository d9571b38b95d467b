"""What reads pixels at places known at run time: GridSample, RoiAlign, MaxRoiPool, DeformPatches.

Pixels and weights of a place are found once, and then serve all of its channels, which lie side by
side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mdlc.codegen.code import C_TYPES, Call, Microkernel, Pointer, nested, offset, position, times
from mdlc.codegen.gemm.strides import logical_strides
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Schedule, Step
from mdlc.codegen.tiles.plain import Plain, PlainKernel, input_view, kind, over, sizes, unravelled
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.deform_patches import DeformPatches
from mdlc.compiler.ops.grid_sample import MODES, PADDINGS, GridSample
from mdlc.compiler.ops.max_roi_pool import MaxRoiPool
from mdlc.compiler.ops.roi_align import MOST_SAMPLES, RoiAlign
from mdlc.compiler.types import DType

_BLEND = """\
// y[c] = the sum of weight[t] * x[offset[t] + c] over `count` pixels, for kChannels channels that
// are kStep apart in x and kTo in y.
template <typename T, int kChannels, int kStep, int kTo>
inline void blend(const T* x, T* y, const std::ptrdiff_t* offset, const T* weight, int count) {
  for (int c = 0; c < kChannels; ++c) y[std::ptrdiff_t{c} * kTo] = T(0);
  for (int t = 0; t < count; ++t) {
    const T* from = x + offset[t];
    for (int c = 0; c < kChannels; ++c) {
      y[std::ptrdiff_t{c} * kTo] += weight[t] * from[std::ptrdiff_t{c} * kStep];
    }
  }
}
"""

_TAPS = """\
// The pixels that a place (-1 to 1) along an axis is made of: indices, -1 for one that is 0, and
// weights. kMode: 0 nearest, 1 linear, 2 cubic; kPadding: 0 zeros, 1 border, 2 reflection.
inline float reflected(float at, float low, float high) {
  const float span = high - low;
  if (!(span > 0.0F)) return low;
  const bool below = at < low;
  if (!below && !(at > high)) return at;
  const float away = below ? low - at : at - high;
  const float turns = std::floor(away / span);
  const float rest = away - turns * span;
  return below == (std::fmod(turns, 2.0F) == 0.0F) ? low + rest : high - rest;
}

template <typename T, int kMode, int kPadding, bool kAlign>
inline void grid_taps(float place, int length, int* index, T* weight) {
  const float last = static_cast<float>(length - 1);
  const float low = kAlign ? 0.0F : -0.5F, high = kAlign ? last : last + 0.5F;
  float at = kAlign ? (place + 1.0F) / 2.0F * last
                    : ((place + 1.0F) * static_cast<float>(length) - 1.0F) / 2.0F;
  if (kMode == 0) at = std::nearbyint(at);
  // Of cubic ones, only the pixels that a place is made of.
  if (kPadding == 1 && kMode != 2 && (at < low || at > high)) at = at < low ? 0.0F : last;
  if (kPadding == 2 && kMode != 2) at = reflected(at, low, high);
  if (!(std::fabs(at) < 1e9F)) at = -9.0F;
  const float base = std::floor(at);
  const T r = static_cast<T>(at - base), a = T(-0.75);
  int first = static_cast<int>(base), count = 1;
  if (kMode == 0) {
    weight[0] = T(1);
  } else if (kMode == 1) {
    weight[0] = T(1) - r;
    weight[1] = r;
    count = 2;
  } else {
    const T s = T(1) - r, p = r + T(1), q = s + T(1);
    weight[0] = ((a * p - T(5) * a) * p + T(8) * a) * p - T(4) * a;
    weight[1] = ((a + T(2)) * r - (a + T(3))) * r * r + T(1);
    weight[2] = ((a + T(2)) * s - (a + T(3))) * s * s + T(1);
    weight[3] = ((a * q - T(5) * a) * q + T(8) * a) * q - T(4) * a;
    first -= 1;
    count = 4;
  }
  for (int t = 0; t < count; ++t) {
    int i = first + t;
    if (kPadding == 2) i = static_cast<int>(reflected(static_cast<float>(i), low, high));
    const bool outside = i < 0 || i >= length;
    index[t] = outside && kPadding == 0 ? -1 : (i < 0 ? 0 : (i >= length ? length - 1 : i));
  }
}
"""

_CORNERS = """\
// The four pixels around a place in a plane and their weights; false where it is outside.
template <typename T>
inline bool around(T v, T u, int height, int width, int* pixel, T* weight) {
  if (!(v >= T(-1)) || v > T(height) || !(u >= T(-1)) || u > T(width)) return false;
  const auto inside = [](T at, int length) {
    return at > T(0) ? (at < T(length - 1) ? at : T(length - 1)) : T(0);
  };
  v = inside(v, height);
  u = inside(u, width);
  const int top = static_cast<int>(v), left = static_cast<int>(u);
  const int bottom = top + 1 < height ? top + 1 : top, right = left + 1 < width ? left + 1 : left;
  const T b = v - T(top), a = u - T(left);
  pixel[0] = top, pixel[1] = left, pixel[2] = bottom, pixel[3] = right;
  weight[0] = (T(1) - b) * (T(1) - a);
  weight[1] = (T(1) - b) * a;
  weight[2] = b * (T(1) - a);
  weight[3] = b * a;
  return true;
}
"""

_ALIGN = """\
// One cell of a region: the mean of bilinear samples, or the largest of their weighted pixels.
template <typename T, int kHeight, int kWidth, int kRow, int kPixel, int kChannels, int kStep,
          int kTo, bool kLargest>
inline void roi_cell(const T* x, T* y, T top, T left, T down, T across, int rows, int columns) {
  for (int c = 0; c < kChannels; ++c) y[std::ptrdiff_t{c} * kTo] = T(0);
  const T part = T(1) / T(rows * columns > 0 ? rows * columns : 1);
  bool first = true;
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < columns; ++j) {
      int pixel[4] = {0, 0, 0, 0};
      T weight[4] = {T(0), T(0), T(0), T(0)};
      around(top + (T(i) + T(0.5)) * down / T(rows), left + (T(j) + T(0.5)) * across / T(columns),
             kHeight, kWidth, pixel, weight);
      const T* from[4];
      for (int t = 0; t < 4; ++t) {
        from[t] = x + std::ptrdiff_t{pixel[t / 2 * 2]} * kRow +
                  std::ptrdiff_t{pixel[t % 2 * 2 + 1]} * kPixel;
      }
      for (int c = 0; c < kChannels; ++c) {
        const std::ptrdiff_t at = std::ptrdiff_t{c} * kStep, to = std::ptrdiff_t{c} * kTo;
        const T p = weight[0] * from[0][at], q = weight[1] * from[1][at];
        const T r = weight[2] * from[2][at], s = weight[3] * from[3][at];
        if (kLargest) {
          const T most = std::max(std::max(p, q), std::max(r, s));
          y[to] = first ? most : std::max(y[to], most);
        } else {
          y[to] += (p + q + r + s) * part;
        }
      }
      first = false;
    }
  }
}
"""

_SAMPLES = f"""\
// Samples along a side of a cell: one a pixel, where their number is not given.
template <typename T>
inline int roi_samples(int given, T side) {{
  if (given > 0) return given;
  return side > T(0) ? static_cast<int>(std::ceil(std::min(side, T({MOST_SAMPLES})))) : 0;
}}
"""

_LARGEST = """\
// One cell of a region: the largest pixel of rows [top, bottom) and columns [left, right).
template <typename T, int kRow, int kPixel, int kChannels, int kStep, int kTo>
inline void roi_largest(const T* x, T* y, int top, int bottom, int left, int right) {
  for (int c = 0; c < kChannels; ++c) {
    const T* from = x + std::ptrdiff_t{c} * kStep;
    T most = T(0);
    for (int i = top; i < bottom; ++i) {
      for (int j = left; j < right; ++j) {
        const T value = from[std::ptrdiff_t{i} * kRow + std::ptrdiff_t{j} * kPixel];
        most = (i == top && j == left) || value > most ? value : most;
      }
    }
    y[std::ptrdiff_t{c} * kTo] = most;
  }
}

// The pixels of a cell along an axis: its first one, or behind its last one, inside the image.
inline int roi_edge(float at, int first, int length) {
  const float place = std::min(std::max(at + static_cast<float>(first), 0.0F), 1e9F);
  return std::min(static_cast<int>(place), length);
}

inline int roi_corner(float at, float scale) {
  const float place = std::round(at * scale);
  return std::fabs(place) < 1e8F ? static_cast<int>(place) : 0;
}
"""

_DEFORM = """\
// One tap of one channel, moved: bilinear, 0 outside.
template <typename T, int kHeight, int kWidth>
inline T moved_tap(const T* x, T v, T u) {
  if (!(v > T(-1)) || !(v < T(kHeight)) || !(u > T(-1)) || !(u < T(kWidth))) return T(0);
  const T top = std::floor(v), left = std::floor(u), b = v - top, a = u - left;
  const int i = static_cast<int>(top), j = static_cast<int>(left);
  T sum = T(0);
  for (int p = 0; p < 2; ++p) {
    for (int q = 0; q < 2; ++q) {
      if (i + p < 0 || i + p >= kHeight || j + q < 0 || j + q >= kWidth) continue;
      sum += (p ? b : T(1) - b) * (q ? a : T(1) - a) * x[(i + p) * kWidth + j + q];
    }
  }
  return sum;
}
"""

_INCLUDES = ("algorithm", "cmath", "cstddef", "cstdint")
_BLEND_KERNEL = Microkernel("blend", _BLEND, includes=_INCLUDES)
_TAPS_KERNEL = Microkernel("grid_taps", _TAPS, includes=_INCLUDES)
_CORNERS_KERNEL = Microkernel("around", _CORNERS, includes=_INCLUDES)
_SAMPLES_KERNEL = Microkernel("roi_samples", _SAMPLES, includes=_INCLUDES)
_ALIGN_KERNEL = Microkernel("roi_cell", _ALIGN, needs=(_CORNERS_KERNEL,), includes=_INCLUDES)
_LARGEST_KERNEL = Microkernel("roi_largest", _LARGEST, includes=_INCLUDES)
_DEFORM_KERNEL = Microkernel("moved_tap", _DEFORM, includes=_INCLUDES)


def _named(shape: Sequence[int], names: Sequence[str]) -> str:
    """Declarations of the index along each axis that is longer than 1, of position i0."""
    return "".join(
        f"const int {name} = {index};\n"
        for length, name, index in zip(shape, names, unravelled("i0", shape), strict=True)
        if length > 1
    )


class SamplingKernel(PlainKernel):
    """What reads at places known at run time, of floats."""

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        return super().matches(node, isa) and node.type.dtype in (DType.F32, DType.F64)

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        return node.op.cost([s.type for s in node.inputs], node.type).macs * 2.0


class GridSampleKernel(SamplingKernel):
    """Taps along each axis, then all their products."""

    name = "grid_sample"
    layer = "GridSample"
    op = GridSample
    names = ("x", "grid")

    def plain(self, step: Step) -> Plain:
        node, op = step.node, step.node.op
        assert isinstance(op, GridSample)
        x, grid = (source.type for source in node.inputs)
        of, to = logical_strides(input_view(step, 0)), logical_strides(step.output)
        axes, dtype = x.rank - 2, kind(node)
        mode, padding = MODES.index(op.mode), PADDINGS.index(op.padding)
        taps, align = (1, 2, 4)[mode], "true" if op.align_corners else "false"
        shape = grid.shape[:-1]
        places = ("image", *(f"place{axis}" for axis in range(axes)))
        own = logical_strides(input_view(step, 1))

        def moved(base: str, strides: Sequence[int]) -> Pointer:
            return offset(base, *zip(shape, places, strides, strict=True))

        lines = [
            *_named(shape, places).splitlines(),
            f"const {C_TYPES[grid.dtype]}* at = {moved('grid', own[:-1])};",
            f"int index[{axes}][{taps}];",
            f"{dtype} part[{axes}][{taps}];",
        ]
        for axis in range(axes):
            value = f"at[{(axes - 1 - axis) * own[-1]}]"
            value = value if grid.dtype is DType.F32 else f"static_cast<float>({value})"
            lines.append(
                f"grid_taps<{dtype}, {mode}, {padding}, {align}>({value}, {x.shape[2 + axis]}, "
                f"index[{axis}], part[{axis}]);"
            )
        lines += [f"std::ptrdiff_t offset[{taps**axes}];", f"{dtype} weight[{taps**axes}];"]
        lines.append("int count = 0;")
        names = [f"t{axis}" for axis in range(axes)]
        pairs = [(axis, t if taps > 1 else "0") for axis, t in enumerate(names)]
        inside = " && ".join(f"index[{a}][{t}] >= 0" for a, t in pairs)
        pixel = " + ".join(times(of[2 + a], f"std::ptrdiff_t{{index[{a}][{t}]}}") for a, t in pairs)
        factor = " * ".join(f"part[{a}][{t}]" for a, t in pairs)
        tap = f"offset[count] = {pixel};\nweight[count++] = {factor};"
        lines.append(nested([(t, taps) for t in names], f"if ({inside}) {{\n{tap}\n}}"))
        image = offset("x", (shape[0], "image", of[0]))
        target = moved("y", (to[0], *to[2:]))
        steps = (dtype, x.shape[1], of[1], to[1])
        call = Call(_BLEND_KERNEL, (image, target, "offset", "weight", "count"), steps)
        name = f"grid_sample_{sizes(x.shape)}_{sizes(grid.shape[1:-1])}_{op.mode}_{op.padding}"
        return Plain(
            name + ("_aligned" if op.align_corners else ""),
            over(math.prod(shape), "\n".join(lines), call),
            (_TAPS_KERNEL,),
            _INCLUDES,
        )


class RoiAlignKernel(SamplingKernel):
    """Cell by cell, all channels of a sample at once."""

    name = "roi_align"
    layer = "RoiAlign"
    op = RoiAlign
    names = ("x", "regions", "batch")

    def plain(self, step: Step) -> Plain:
        node, op = step.node, step.node.op
        assert isinstance(op, RoiAlign)
        x, regions = (source.type for source in node.inputs[:2])
        of, to = logical_strides(input_view(step, 0)), logical_strides(step.output)
        rows, columns = op.size
        dtype = kind(node)
        count = regions.shape[0]
        scale = f" * {dtype}({op.scale!r})" if op.scale != 1 else ""
        shift = f" - {dtype}(0.5)" if op.half_pixel else ""

        def corner(index: int) -> str:
            return f"static_cast<{dtype}>(region[{index}]){scale}{shift}"

        cells = (count, rows, columns)
        text = f"""\
{_named(cells, ("number", "row", "column"))}\
const {C_TYPES[regions.dtype]}* region = {offset("regions", (count, "number", 4))};
const std::int64_t image = std::min(std::max(
    static_cast<std::int64_t>(batch[{position((count, "number", 1))}]), std::int64_t{{0}}),
    std::int64_t{{{x.shape[0] - 1}}});
const {dtype} left = {corner(0)}, top = {corner(1)};
{dtype} across = {corner(2)} - left, down = {corner(3)} - top;
"""
        if not op.half_pixel:
            text += f"across = std::max(across, {dtype}(1));\ndown = std::max(down, {dtype}(1));\n"
        text += f"across /= {dtype}({columns});\n" if columns > 1 else ""
        text += f"down /= {dtype}({rows});\n" if rows > 1 else ""
        height, width = x.shape[2:]
        numbers = (dtype, height, width, of[2], of[3], x.shape[1], of[1], to[1])
        call = Call(
            _ALIGN_KERNEL,
            (
                Pointer("x").plus("image", of[0]),
                offset(
                    "y", (count, "number", to[0]), (rows, "row", to[2]), (columns, "column", to[3])
                ),
                f"top + {dtype}(row) * down" if rows > 1 else "top",
                f"left + {dtype}(column) * across" if columns > 1 else "left",
                "down",
                "across",
                f"roi_samples({op.ratio}, down)",
                f"roi_samples({op.ratio}, across)",
            ),
            (*numbers, "true" if op.largest else "false"),
        )
        name = f"roi_align_{sizes(x.shape)}_to_{sizes(node.shape)}_{op.ratio}"
        statements = over(math.prod(node.shape) // node.shape[1], text, call)
        return Plain(name, statements, (_SAMPLES_KERNEL,), _INCLUDES)


class MaxRoiPoolKernel(SamplingKernel):
    """Cell by cell."""

    name = "max_roi_pool"
    layer = "MaxRoiPool"
    op = MaxRoiPool
    names = ("x", "regions")

    def plain(self, step: Step) -> Plain:
        node, op = step.node, step.node.op
        assert isinstance(op, MaxRoiPool)
        x = node.inputs[0].type
        of, to = logical_strides(input_view(step, 0)), logical_strides(step.output)
        rows, columns = op.size

        count = node.inputs[1].shape[0]

        def edges(cells: int, place: str, side: str, first: str, length: int) -> tuple[str, str]:
            """Where a cell starts and ends along an axis."""
            start, end = "0.0F", f"std::ceil({side})"
            if cells > 1:
                start = f"std::floor(static_cast<float>({place}) * {side})"
                end = f"std::ceil(static_cast<float>({place} + 1) * {side})"
            return f"roi_edge({start}, {first}, {length})", f"roi_edge({end}, {first}, {length})"

        def extent(first: int, last: int, cells: int) -> str:
            corner = ("left", "top")[first]
            whole = f"static_cast<float>(std::max({corners[last]} - {corner} + 1, 1))"
            return whole + (f" / {cells}.0F" if cells > 1 else "")

        scale = f"static_cast<float>({op.scale!r})"
        corners = [f"roi_corner(static_cast<float>(region[{i}]), {scale})" for i in range(1, 5)]
        text = f"""\
{_named((count, rows, columns), ("number", "row", "column"))}\
const {kind(node.inputs[1])}* region = {offset("regions", (count, "number", 5))};
const int image = std::min(std::max(roi_corner(static_cast<float>(region[0]), 1.0F), 0),
                           {x.shape[0] - 1});
const int left = {corners[0]}, top = {corners[1]};
const float across = {extent(0, 2, columns)};
const float down = {extent(1, 3, rows)};
"""
        call = Call(
            _LARGEST_KERNEL,
            (
                Pointer("x").plus("image", of[0]),
                offset(
                    "y", (count, "number", to[0]), (rows, "row", to[2]), (columns, "column", to[3])
                ),
                *edges(rows, "row", "down", "top", x.shape[2]),
                *edges(columns, "column", "across", "left", x.shape[3]),
            ),
            (kind(node), of[2], of[3], x.shape[1], of[1], to[1]),
        )
        name = f"max_roi_pool_{sizes(x.shape)}_to_{sizes(node.shape)}"
        statements = over(math.prod(node.shape) // node.shape[1], text, call)
        return Plain(name, statements, (), _INCLUDES)


class DeformPatchesKernel(SamplingKernel):
    """Element by element, in the order of the output."""

    name = "deform_patches"
    layer = "DeformPatches"
    op = DeformPatches
    names = ("x", "offset", "mask")

    def plain(self, step: Step) -> Plain:
        node, op = step.node, step.node.op
        assert isinstance(op, DeformPatches)
        x = node.inputs[0].type
        window, (oh, ow) = op.window, node.shape[2:]
        kernel, planes = window.kernel, x.shape[0] * x.shape[1]
        taps = kernel[0] * kernel[1]
        dtype, size = kind(node), oh * ow
        rows, names = ((oh, "row", ow), (ow, "column", 1)), ("tap_row", "tap_column")
        place = []
        for axis, (trips, inner, _) in enumerate(rows):
            fixed = position(
                (trips, inner, window.stride[axis]),
                (kernel[axis], names[axis], window.dilation[axis]),
                fixed=-window.pads[axis],
            )
            place.append(f"{dtype}({fixed}) + moved[{position(*rows, fixed=axis * size)}]")
        # Channels of a group are moved alike.
        groups = x.shape[0] * op.groups
        group, tap = unravelled("i0", (groups, planes // groups * taps))[0], f"i0 % {taps}"
        moves = groups * taps
        text = _named((planes, *kernel), ("plane", *names))
        if moves > 1:
            tap = position((groups, f"std::ptrdiff_t{{{group}}}", taps), (taps, tap, 1))
            text += f"const std::ptrdiff_t move = {tap};\n"
        text += f"""\
const {dtype}* from = {offset("x", (planes, "std::ptrdiff_t{plane}", math.prod(x.shape[2:])))};
const {dtype}* moved = {offset("offset", (moves, "move", 2 * size))};
const {dtype}* factor = {offset("mask", (moves, "move", size))};
{dtype}* to = {offset("y", (planes * taps, "std::ptrdiff_t{i0}", size))};
"""
        at = position(*rows)
        text += nested(
            [("row", oh), ("column", ow)],
            f"to[{at}] = factor[{at}] * "
            f"moved_tap<{dtype}, {x.shape[2]}, {x.shape[3]}>(from, {place[0]}, {place[1]});",
        )
        name = f"deform_{sizes(x.shape)}_{sizes(window.kernel)}_to_{sizes(node.shape)}"
        statements = over(x.shape[0] * x.shape[1] * taps, text)
        return Plain(name, statements, (_DEFORM_KERNEL,), _INCLUDES)


KERNELS = (GridSampleKernel(), RoiAlignKernel(), MaxRoiPoolKernel(), DeformPatchesKernel())
