"""TopK: a partial sort of the indices of every row."""

from __future__ import annotations

from mdlc.codegen.code import C_TYPES, Call, Function, Loop, Microkernel, Variable, times
from mdlc.codegen.gemm.strides import joined, logical_strides, nest, pointer
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Kernel, Schedule, Step
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.top_k import TopK
from mdlc.compiler.types import DType

_SELECT = """\
// The indices of the best kCount of kLength entries kStep apart, best first: the largest, or the
// smallest. Of equal entries the first comes first; NaN counts as the largest.
template <typename T, int kLength, int kCount, int kStep, bool kLargest>
inline void top_k(const T* x, std::int32_t* order) {
  for (int i = 0; i < kLength; ++i) order[i] = i;
  std::partial_sort(order, order + kCount, order + kLength, [x](std::int32_t a, std::int32_t b) {
    const T first = x[a * kStep], second = x[b * kStep];
    const bool first_nan = first != first, second_nan = second != second;
    if (first_nan || second_nan) {
      return first_nan == second_nan ? a < b : (kLargest ? first_nan : second_nan);
    }
    if (first == second) return a < b;
    return kLargest ? first > second : first < second;
  });
}
"""


class TopKKernel(Kernel):
    """Rows with strides, indices in scratch memory."""

    name = "top_k"
    layer = "TopK"
    pitched_input = True

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        # Halves are bits here, and do not compare as numbers.
        return isinstance(node.op, TopK) and node.inputs[0].type.dtype is not DType.F16

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        return node.inputs[0].type.size * 4.0 + node.type.size * 20.0

    def scratch(self, node: Node, schedule: Schedule, isa: KernelIsa) -> int:
        assert isinstance(node.op, TopK)
        return node.inputs[0].shape[node.op.axis] * 4

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, op = step.node, step.node.op
        assert isinstance(op, TopK)
        source = node.inputs[0].type
        x_strides, y_strides = logical_strides(step.inputs[0]), logical_strides(step.output)
        axes = [a for a in range(source.rank) if a != op.axis]
        dims = joined(
            [source.shape[a] for a in axes],
            [[x_strides[a] for a in axes], [y_strides[a] for a in axes]],
            0,
        )
        kind, length = C_TYPES[source.dtype], source.shape[op.axis]
        largest = "true" if op.largest else "false"
        stride = y_strides[op.axis]
        select = Microkernel("top_k", _SELECT, includes=("algorithm", "cstdint"))
        numbers = (kind, length, op.count, x_strides[op.axis], largest)
        call = Call(select, (pointer("x", dims, 0), "order"), numbers)
        copy = (
            Variable("std::int64_t*", "to", pointer("y", dims, 1)),
            Loop("i", op.count, (f"to[{times(stride, 'i')}] = order[i];",))
            if op.count > 1
            else "to[0] = order[0];",
        )
        shape = "x".join(map(str, source.physical_shape))
        name = f"top{op.count}_{shape}_axis{source.physical_axis(op.axis)}_{source.dtype.value}"
        name += "" if op.largest else "_smallest"
        return step.function(
            name,
            "std::int32_t* order = reinterpret_cast<std::int32_t*>(scratch);",
            nest([dim.count for dim in dims], call, copy),
            comment=[op.words],
            scratch=True,
        )


KERNELS = (TopKKernel(),)
