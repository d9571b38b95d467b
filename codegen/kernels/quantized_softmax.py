"""Softmax of 8-bit integers along any axis: tables, a sum in 64 bits, divisions."""

from __future__ import annotations

from collections.abc import Sequence

from mdlc.codegen.code import Call, Function, Microkernel
from mdlc.codegen.gemm.strides import joined, logical_strides, nest, pointer
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.isa.int8 import scalar_bound
from mdlc.codegen.kernel import Kernel, Schedule, Step
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.quantized_softmax import QuantizedSoftmax
from mdlc.compiler.types import Array

# Rows at least as long are looked up in a table of results: there are only 256 of them, and the
# distances that give zero need no division.
TABLED = 64


class ByteSoftmax(Kernel):
    """Scalar everywhere: most of the time is loads from tables, which vectors have not."""

    name = "quantized_softmax"
    layer = "Softmax"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        return isinstance(node.op, QuantizedSoftmax) and node.inputs[0].constant is None

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        """Three passes of an element; a division of 64 bits takes some 20 cycles."""
        assert isinstance(node.op, QuantizedSoftmax)
        length = node.shape[node.op.axis]
        rows = node.type.size // max(length, 1)
        results = 256 * 4 + 64 * 20 if length >= TABLED else length * 20
        return rows * (length * 5 + results)

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        assert isinstance(node.op, QuantizedSoftmax)
        exponential, step = node.op.tables()
        return {"exponential": exponential, "step": step}

    def in_place(self, node: Node) -> Sequence[int]:
        return [0] if node.inputs[0].type == node.type else []

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, op = step.node, step.node.op
        assert isinstance(op, QuantizedSoftmax)
        strides = [logical_strides(view) for view in (step.inputs[0], step.output)]
        length, (x_step, y_step) = node.shape[op.axis], (s[op.axis] for s in strides)
        others = [axis for axis in range(node.type.rank) if axis != op.axis]
        dims = joined(
            [node.shape[axis] for axis in others],
            [[s[axis] for axis in others] for s in strides],
            1,
        )
        row = _row(op.dtype.value, length >= TABLED)
        numbers = (length, x_step, y_step, op.y_zero, op.low, op.high)
        call = Call(
            row, ("exponential", "step", pointer("x", dims, 0), pointer("y", dims, 1)), numbers
        )
        shape = "x".join(map(str, node.type.physical_shape))
        kinds = node.inputs[0].type.dtype.value + op.dtype.value
        name = f"qsoftmax_{shape}_axis{node.type.physical_axis(op.axis)}_{kinds}"
        loops = nest([dim.count for dim in dims], call, shared=True)
        return step.function(name, loops, comment=[op.words], includes=("cstdint",))


def _row(kind: str, tabled: bool) -> Microkernel:
    """One row: softmax_row_i8<length, steps, ...>(exponential, step, x, y)."""
    bound = scalar_bound(kind)
    name = f"softmax_row{'_tabled' if tabled else ''}_{kind}"
    fill = """\
  // Results fall with the distance: behind the first that is zero, all are.
  Y results[256];
  int known = 0;
  for (; known < 256 && 2 * step[known] >= total; ++known) results[known] = result(step[known]);
  for (int d = known; d < 256; ++d) results[d] = result(0);
  for (int i = 0; i < kCount; ++i) y[i * kTo] = results[top - x[i * kFrom]];
"""
    direct = "  for (int i = 0; i < kCount; ++i) y[i * kTo] = result(step[top - x[i * kFrom]]);\n"
    text = (
        "// y = bound(floor((2 step[d] + S) / (2 S)) + zero), d = max(x) - x, S the sum of all\n"
        "// exponential[d]: 2^31 and more.\n"
        "template <int kCount, int kFrom, int kTo, int kZero, int kLow, int kHigh, typename X, "
        "typename Y>\n"
        f"inline void {name}(const std::uint32_t* exponential, const std::uint64_t* step, "
        "const X* x, Y* y) {\n"
        "  int top = x[0];\n"
        "  for (int i = 1; i < kCount; ++i) top = x[i * kFrom] > top ? x[i * kFrom] : top;\n"
        "  std::uint64_t total = 0;\n"
        "  for (int i = 0; i < kCount; ++i) total += exponential[top - x[i * kFrom]];\n"
        "  // step is below 2^56 and total at least 2^31: a quotient fits.\n"
        "  const auto result = [total](std::uint64_t numerator) {\n"
        "    const auto value = static_cast<std::int32_t>((2 * numerator + total) / (2 * total));\n"
        f"    return {bound.name}(value, kZero, kLow, kHigh);\n"
        "  };\n"
        f"{fill if tabled else direct}}}\n"
    )
    return Microkernel(name, text, (bound,))


KERNELS = (ByteSoftmax(),)
