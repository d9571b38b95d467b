"""Determinants, by Gaussian elimination with the largest pivot."""

from __future__ import annotations

import math

from mdlc.codegen.code import Microkernel, nested, offset, position
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Schedule, Step
from mdlc.codegen.tiles.plain import Plain, PlainKernel, kind, sizes
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.det import Det

_DET = """\
// The determinant of a matrix of kSize x kSize, whose copy `a` is eliminated.
template <typename T, int kSize>
inline T determinant(const T* x, double* a) {
  for (int i = 0; i < kSize * kSize; ++i) a[i] = static_cast<double>(x[i]);
  double product = 1.0;
  for (int k = 0; k < kSize; ++k) {
    int pivot = k;
    for (int i = k + 1; i < kSize; ++i) {
      if (std::fabs(a[i * kSize + k]) > std::fabs(a[pivot * kSize + k])) pivot = i;
    }
    if (pivot != k) {
      for (int j = k; j < kSize; ++j) std::swap(a[k * kSize + j], a[pivot * kSize + j]);
      product = -product;
    }
    const double top = a[k * kSize + k];
    product *= top;
    if (top == 0.0) return static_cast<T>(product);
    for (int i = k + 1; i < kSize; ++i) {
      const double factor = a[i * kSize + k] / top;
      for (int j = k + 1; j < kSize; ++j) a[i * kSize + j] -= factor * a[k * kSize + j];
    }
  }
  return static_cast<T>(product);
}
"""


class DetKernel(PlainKernel):
    """Matrix by matrix, in double precision."""

    name = "det"
    layer = "Det"
    op = Det

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        x = node.inputs[0]
        return x.type.size * x.shape[-1] * 0.7

    def scratch(self, node: Node, schedule: Schedule, isa: KernelIsa) -> int:
        return node.inputs[0].shape[-1] ** 2 * 8

    def plain(self, step: Step) -> Plain:
        node = step.node
        shape = node.inputs[0].shape
        size, count = shape[-1], math.prod(shape[:-2])
        det = Microkernel("determinant", _DET, includes=("cmath", "utility"))
        x, at = offset("x", (count, "i", size * size)), position((count, "i", 1))
        lines = [
            "double* a = reinterpret_cast<double*>(scratch);",
            nested([("i", count)], f"y[{at}] = determinant<{kind(node)}, {size}>({x}, a);"),
        ]
        return Plain(f"det_{sizes(shape)}", lines, (det,), scratch=True)


KERNELS = (DetKernel(),)
