"""What finds entries whose number depends on data: NonZero, Unique, Span, NonMaxSuppression."""

from __future__ import annotations

import math

from mdlc.codegen.code import Call, Microkernel
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Schedule, Step
from mdlc.codegen.tiles.plain import Plain, PlainKernel, kind, sizes
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.non_max_suppression import NonMaxSuppression
from mdlc.compiler.ops.non_zero import NonZero
from mdlc.compiler.ops.span import Span
from mdlc.compiler.ops.unique import Unique

_UNIQUE = """\
// Of kCount slices (x[outer][slice][inner]) those that differ: where each first stands, how often
// it does, at most kBound of them; then the number of every slice, and how many there are.
// NaN is behind all numbers, and is one value.
template <typename T, int kOuter, int kCount, int kInner, int kBound, bool kOrdered>
inline void unique(const T* x, std::int64_t* y, std::int32_t* order) {
  const auto compare = [x](std::int32_t a, std::int32_t b) {
    for (int i = 0; i < kOuter * kInner; ++i) {
      const T* row = x + i / kInner * (kCount * kInner) + i % kInner;
      const T first = row[a * kInner], second = row[b * kInner];
      const bool first_nan = first != first, second_nan = second != second;
      if (first_nan != second_nan) return first_nan ? 1 : -1;
      if (first < second) return -1;
      if (second < first) return 1;
    }
    return 0;
  };
  std::int64_t* counts = y + kBound;
  std::int64_t* which = counts + kBound;
  std::int32_t* number = order + kCount;
  for (int i = 0; i < 2 * kBound; ++i) y[i] = 0;
  for (int i = 0; i < kCount; ++i) order[i] = i;
  std::sort(order, order + kCount, [&compare](std::int32_t a, std::int32_t b) {
    const int found = compare(a, b);
    return found == 0 ? a < b : found < 0;
  });
  // Every slice by the first that is like it, then by that one's number.
  std::int32_t count = 0;
  for (int i = 0; i < kCount; ++i) {
    const std::int32_t at = order[i];
    const bool same = i > 0 && compare(order[i - 1], at) == 0;
    which[at] = same ? which[order[i - 1]] : at;
    if (kOrdered && !same) number[at] = count++;
  }
  for (int i = 0; i < kCount; ++i) {
    const std::int64_t first = which[i];
    if (!kOrdered && first == i) number[i] = count++;
    const std::int32_t own = number[first];
    which[i] = own;
    if (own < kBound) {
      if (first == i) y[own] = i;
      ++counts[own];
    }
  }
  which[kCount] = count < kBound ? count : kBound;
}
"""

_SUPPRESS = """\
// Rows (batch, class, box) of the boxes to keep, best scores of each class first: at most `most`
// of a class, none that overlaps a better one by more than `overlap`, of scores above `least`.
template <int kBatch, int kClasses, int kBoxes, int kBound, bool kCenters>
inline void suppress(const float* boxes, const float* scores, std::int64_t most, float overlap,
                     float least, std::int64_t* y, std::int32_t* order) {
  struct Corners {
    float x0, y0, x1, y1;
  };
  const auto corners = [](const float* box) {
    if (kCenters) {
      const float width = box[2] / 2, height = box[3] / 2;
      return Corners{box[0] - width, box[1] - height, box[0] + width, box[1] + height};
    }
    return Corners{std::min(box[0], box[2]), std::min(box[1], box[3]), std::max(box[0], box[2]),
                   std::max(box[1], box[3])};
  };
  const bool every = least == -std::numeric_limits<float>::infinity();
  std::int64_t count = 0;
  for (int batch = 0; batch < kBatch; ++batch) {
    const float* places = boxes + std::ptrdiff_t{batch} * kBoxes * 4;
    for (int label = 0; label < kClasses; ++label) {
      const float* own = scores + (std::ptrdiff_t{batch} * kClasses + label) * kBoxes;
      int left = 0;
      for (int i = 0; i < kBoxes; ++i) {
        if (every ? own[i] >= least : own[i] > least) order[left++] = i;
      }
      std::sort(order, order + left, [own](std::int32_t a, std::int32_t b) {
        return own[a] == own[b] ? a < b : own[a] > own[b];
      });
      // Those that are kept move to the front.
      std::int64_t kept = 0;
      for (int i = 0; i < left && kept < most; ++i) {
        const Corners a = corners(places + order[i] * 4);
        const float area = (a.x1 - a.x0) * (a.y1 - a.y0);
        bool drop = false;
        for (std::int64_t k = 0; k < kept && !drop; ++k) {
          const Corners b = corners(places + order[k] * 4);
          const float width = std::max(std::min(a.x1, b.x1) - std::max(a.x0, b.x0), 0.0F);
          const float height = std::max(std::min(a.y1, b.y1) - std::max(a.y0, b.y0), 0.0F);
          const float common = width * height, other = (b.x1 - b.x0) * (b.y1 - b.y0);
          const float total = area + other - common;
          drop = common > 0 && area > 0 && other > 0 && total > 0 && common / total > overlap;
        }
        if (!drop) order[kept++] = order[i];
      }
      for (std::int64_t k = 0; k < kept && count < kBound; ++k, ++count) {
        y[count * 3] = batch;
        y[count * 3 + 1] = label;
        y[count * 3 + 2] = order[k];
      }
    }
  }
  for (std::int64_t i = count * 3; i < std::int64_t{kBound} * 3; ++i) y[i] = -1;
  y[std::ptrdiff_t{kBound} * 3] = count;
}
"""


_SPAN = """\
// The indices of an axis of `length` that a slice from `start` to `end` takes, at most kBound; then
// 0, and how many there are.
template <int kBound>
inline void span(std::int64_t start, std::int64_t end, std::int64_t step, std::int64_t length,
                 std::int64_t* y) {
  const std::int64_t low = step < 0 ? -1 : 0, high = step < 0 ? length - 1 : length;
  const auto within = [=](std::int64_t at, std::int64_t first) {
    return std::min(std::max(at < 0 ? at + length : at, first), high);
  };
  // A step over the whole axis is as good as a longer one, which could overflow.
  const std::int64_t by = std::min(std::max(step, -length - 1), length + 1);
  const std::int64_t last = within(end, low);
  std::int64_t count = 0;
  for (std::int64_t at = within(start, 0); count < kBound; at += by) {
    if (by > 0 ? at >= last : by == 0 || at <= last) break;
    y[count++] = at;
  }
  for (std::int64_t i = count; i < kBound; ++i) y[i] = 0;
  y[kBound] = count;
}
"""


class NonZeroKernel(PlainKernel):
    """One pass, which counts the indices of all axes along."""

    name = "non_zero"
    layer = "NonZero"
    op = NonZero

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        return node.inputs[0].type.size * 3.0

    def plain(self, step: Step) -> Plain:
        node, op = step.node, step.node.op
        assert isinstance(op, NonZero)
        shape = node.inputs[0].shape
        # Indices from the position, the last axis first.
        lines, inner = [], 1
        for axis in reversed(range(len(shape))):
            index = "i" if inner == 1 else f"i / {inner}"
            index = index if axis == 0 else f"{index} % {shape[axis]}"
            place = f"y[{axis * op.bound} + count]" if axis else "y[count]"
            lines.append(f"{place} = {index};")
            inner *= shape[axis]
        written = "\n".join(reversed(lines))
        size, room = math.prod(shape), len(shape) * op.bound
        limit = f" && count < {op.bound}" if op.bound < size else ""
        text = f"""\
for (std::int64_t i = 0; i < {room}; ++i) y[i] = 0;
std::int64_t count = 0;
for (std::int64_t i = 0; i < {size}{limit}; ++i) {{
  if (x[i] != 0) {{
    {written}
    ++count;
  }}
}}
y[{room}] = count;"""
        return Plain(f"nonzero_{sizes(shape)}", [text])


class UniqueKernel(PlainKernel):
    """A sort of the slices' numbers."""

    name = "unique"
    layer = "Unique"
    op = Unique

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        return node.inputs[0].type.size * 8.0 * math.log2(node.type.size)

    def scratch(self, node: Node, schedule: Schedule, isa: KernelIsa) -> int:
        assert isinstance(node.op, Unique)
        return node.inputs[0].shape[node.op.axis] * 8

    def plain(self, step: Step) -> Plain:
        node, op = step.node, step.node.op
        assert isinstance(op, Unique)
        shape = node.inputs[0].shape
        outer, inner = math.prod(shape[: op.axis]), math.prod(shape[op.axis + 1 :])
        ordered = "true" if op.ordered else "false"
        numbers = (kind(node.inputs[0]), outer, shape[op.axis], inner, op.bound, ordered)
        sort = Microkernel("unique", _UNIQUE, includes=("algorithm", "cstdint"))
        call = Call(sort, ("x", "y", "reinterpret_cast<std::int32_t*>(scratch)"), numbers)
        return Plain(f"unique_{sizes(shape)}_axis{op.axis}", [call], scratch=True)


class NonMaxSuppressionKernel(PlainKernel):
    """A sort of the candidates of each class, then each against those that are kept."""

    name = "non_max_suppression"
    layer = "NonMaxSuppression"
    op = NonMaxSuppression
    names = ("boxes", "scores", "most", "overlap", "least")

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        return node.inputs[1].type.size * 20.0

    def scratch(self, node: Node, schedule: Schedule, isa: KernelIsa) -> int:
        return node.inputs[1].shape[2] * 4

    def plain(self, step: Step) -> Plain:
        node, op = step.node, step.node.op
        assert isinstance(op, NonMaxSuppression)
        shape = node.inputs[1].shape
        numbers = (*shape, op.bound, "true" if op.centers else "false")
        select = Microkernel(
            "suppress", _SUPPRESS, includes=("algorithm", "cstddef", "cstdint", "limits")
        )
        order = "reinterpret_cast<std::int32_t*>(scratch)"
        values = ("boxes", "scores", "*most", "*overlap", "*least", "y", order)
        return Plain(f"nms_{sizes(shape)}", [Call(select, values, numbers)], scratch=True)


class SpanKernel(PlainKernel):
    """A loop over what is taken."""

    name = "span"
    layer = "Span"
    op = Span
    names = ("start", "end", "step", "length")

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        return node.type.size * 2.0

    def plain(self, step: Step) -> Plain:
        op = step.node.op
        assert isinstance(op, Span)
        take = Microkernel("span", _SPAN, includes=("algorithm", "cstdint"))
        values = ("*start", "*end", "*step", "*length", "y")
        return Plain(f"span_{op.bound}", [Call(take, values, (op.bound,))])


KERNELS = (NonZeroKernel(), UniqueKernel(), SpanKernel(), NonMaxSuppressionKernel())
