"""Reductions: along the innermost axis into one vector, along others vector by vector."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mdlc.codegen.code import (
    C_TYPES,
    Body,
    Function,
    Microkernel,
    Statement,
    advanced,
    counted_loop,
)
from mdlc.codegen.gemm.strides import Dim, joined, logical_strides, nest, pointer
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.isa.dialect import Dialect
from mdlc.codegen.isa.scalar import SCALAR
from mdlc.codegen.kernel import Kernel, Schedule, Step
from mdlc.codegen.tiles.formula import literal
from mdlc.codegen.tiles.lanes import horizontal, lanes_combined
from mdlc.codegen.tiles.operands import sum_type
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.reduce import Reduce
from mdlc.compiler.types import DType


@dataclass(frozen=True)
class Kind:
    """How values are combined: what comes before, between and after (formats of C++ text)."""

    combine: str
    start: float
    before: str = "{0}"
    after: str = "{0}"


KINDS = {
    "sum": Kind("add", 0.0),
    "mean": Kind("add", 0.0, after="{0} * (1.0F / {1}.0F)"),
    "max": Kind("max", -math.inf),
    "min": Kind("min", math.inf),
    "prod": Kind("mul", 1.0),
    "l1": Kind("add", 0.0, before="abs"),
    "l2": Kind("add", 0.0, before="square", after="std::sqrt({0})"),
    "sum_square": Kind("add", 0.0, before="square"),
    "log_sum": Kind("add", 0.0, after="std::log({0})"),
}


def _before(kind: Kind, isa: Dialect, value: str) -> str:
    if kind.before == "abs":
        return isa.op("abs", value)
    return value


def _update(kind: Kind, isa: Dialect, value: str, acc: str = "acc") -> str:
    if kind.before == "square":
        return isa.fma(value, value, acc)
    return isa.op(kind.combine, _before(kind, isa, value), acc)


class ReduceKernel(Kernel):
    """All kinds, axes and layouts."""

    name = "reduce"
    layer = "Reduction"
    pitched_input = True

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        if not isinstance(node.op, Reduce) or node.op.kind not in KINDS:
            return False
        dtype = node.type.dtype
        if dtype is DType.BOOL:
            return node.op.kind in ("max", "min")
        return dtype is not DType.F16 and not dtype.is_stored

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        return node.inputs[0].type.size / isa.lanes * 2

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, op = step.node, step.node.op
        assert isinstance(op, Reduce)
        source = node.inputs[0].type
        target = isa if source.dtype is DType.F32 else SCALAR
        kind = KINDS[op.kind]
        # Strides of the result along the axes of the input: 0 along those reduced.
        kept_axes = [a for a in range(source.rank) if a not in op.axes]
        own = logical_strides(step.output)
        positions = kept_axes if op.keepdims else range(len(kept_axes))
        out = [0] * source.rank
        for axis, position in zip(kept_axes, positions, strict=True):
            out[axis] = own[position]
        x_strides = logical_strides(step.inputs[0])
        kept = joined(
            [source.shape[a] for a in kept_axes],
            [[x_strides[a] for a in kept_axes], [out[a] for a in kept_axes]],
            0,
        )
        reduced = joined(
            [source.shape[a] for a in op.axes], [[x_strides[a] for a in op.axes]], 0
        ) or [Dim(1, (1,))]
        count = math.prod(dim.count for dim in reduced)
        start = self._start(op.kind, source.dtype)
        microkernels: list[Microkernel] = []
        lanes = target.lanes
        if lanes > 1 and kept and kept[-1].strides == (1, 1) and kept[-1].count >= lanes:
            body = self._down(kind, target, kept, reduced, start, count)
        elif lanes > 1 and reduced[-1].strides == (1,) and reduced[-1].count >= lanes:
            helper = horizontal(target, kind.combine)
            microkernels += [helper] if helper else []
            body = self._along(kind, target, kept, reduced, start, count)
        else:
            body = self._scalar(op.kind, source.dtype, kept, reduced, start, count)
        shape = "x".join(map(str, source.physical_shape))
        axes = "".join(str(source.physical_axis(a)) for a in op.axes)
        name = f"reduce_{op.kind}_{shape}_over_{axes}"
        return step.function(
            name,
            body,
            comment=[op.words],
            needs=microkernels,
            includes=("cmath", "limits")
            if source.dtype.is_float
            else ("cmath", "cstdint", "limits"),
        )

    @staticmethod
    def _start(kind: str, dtype: DType) -> str:
        value = KINDS[kind].start
        if dtype.is_float:
            return literal(value, dtype)
        if dtype is DType.BOOL:
            return "0" if value < 0 else "1"
        if math.isinf(value):
            limits = f"std::numeric_limits<{C_TYPES[dtype]}>"
            return f"{limits}::lowest()" if value < 0 else f"{limits}::max()"
        return str(int(value))

    @staticmethod
    def _down(
        kind: Kind, isa: Dialect, kept: list[Dim], reduced: list[Dim], start: str, count: int
    ) -> Body:
        """Vectors along the innermost kept axis; the reduced axes are loops around a load."""
        outer, inner = kept[:-1], kept[-1]
        loops = [dim.count for dim in reduced]
        shift = [Dim(d.count, (d.strides[0],)) for d in reduced]

        def part(target: Dialect, first: int, end: int) -> list[Statement]:
            """The channels from `first` on, in vectors of a dialect."""
            head, at = counted_loop("c", first, end, target.lanes)
            row = pointer(advanced("row", *at), shift, 0, first=len(outer))
            out = advanced("out", *at)
            update = f"acc = {_update(kind, target, target.load(row))};"
            inside = nest(loops, update, first=len(outer))
            if target.lanes == 1:
                value = kind.after.format("acc", count)
            elif kind.after == "{0}":
                value = "acc"
            elif "1.0F" in kind.after:
                value = target.op("mul", "acc", target.set1(f"1.0F / {count}.0F"))
            elif "sqrt" in kind.after:
                value = target.op("sqrt", "acc")
            else:
                value = ""
            if not value:  # no vector form: lane by lane
                store = (
                    f"float lanes[{target.lanes}];\n{target.store('lanes', 'acc')};\n"
                    f"for (int i = 0; i < {target.lanes}; ++i) {{\n"
                    f"({out})[i] = {kind.after.format('lanes[i]', count)};\n}}"
                )
            else:
                store = f"{target.store(out, value)};"
            return [head, f"{target.vector} acc = {target.set1(start)};", *inside, store, "}"]

        full = inner.count // isa.lanes * isa.lanes
        parts = part(isa, 0, full)
        if full < inner.count:
            parts += part(SCALAR, full, inner.count)
        row = f"const float* row = {pointer('x', outer, 0)};"
        out = f"float* out = {pointer('y', outer, 1)};"
        return nest([dim.count for dim in outer], row, out, parts)

    @staticmethod
    def _along(
        kind: Kind, isa: Dialect, kept: list[Dim], reduced: list[Dim], start: str, count: int
    ) -> Body:
        """One vector of partial results along the innermost axis, combined at the end."""
        inner, outer = reduced[-1], reduced[:-1]
        shift = [Dim(d.count, (d.strides[0],)) for d in outer]
        row = pointer("row", shift, 0, first=len(kept))
        full = inner.count // isa.lanes * isa.lanes
        head, at = counted_loop("i", 0, full, isa.lanes)
        loop = f"{head}\nacc = {_update(kind, isa, isa.load(advanced(str(row), *at)))};\n}}"
        combined = lanes_combined(isa, kind.combine, "acc")
        lines: list[Statement] = [
            f"const float* row = {pointer('x', kept, 0)};",
            f"{isa.vector} acc = {isa.set1(start)};",
            *nest([dim.count for dim in outer], loop, first=len(kept)),
            f"float total = {combined};",
        ]
        if full < inner.count:
            head, at = counted_loop("i", full, inner.count)
            update = _update(kind, SCALAR, f"*({advanced(str(row), *at)})", "total")
            tail = f"{head}\ntotal = {update};\n}}"
            lines += nest([dim.count for dim in outer], tail, first=len(kept))
        lines.append(f"*({pointer('y', kept, 1)}) = {kind.after.format('total', count)};")
        return nest([dim.count for dim in kept], lines, shared=True)

    @staticmethod
    def _scalar(
        kind: str, dtype: DType, kept: list[Dim], reduced: list[Dim], start: str, count: int
    ) -> Body:
        c_type, total = C_TYPES[dtype], sum_type(dtype)
        how = KINDS[kind]
        shift = [Dim(d.count, (d.strides[0],)) for d in reduced]
        value = f"*({pointer('row', shift, 0, first=len(kept))})"
        if dtype.is_float:
            update = f"const {c_type} value = {value};\nacc = {_update(how, SCALAR, 'value')};"
            result = _AFTER_IN_DOUBLE.get(kind, how.after) if dtype is DType.F64 else how.after
            result = result.format("acc", count)
        else:
            # Sums of integers wrap around at the end only, as they do in NumPy.
            signless = kind == "l1" and dtype.value.startswith("u")
            combined = _INTEGER_UPDATES["sum" if signless else kind]
            update = f"const {total} value = {value};\nacc = {combined};"
            result = (
                f"static_cast<{c_type}>({_INTEGER_AFTER.get(kind, '{0}').format('acc', count)})"
            )
        lines: list[Statement] = [
            f"const {c_type}* row = {pointer('x', kept, 0)};",
            f"{total} acc = {start};",
            *nest([dim.count for dim in reduced], update, first=len(kept)),
            f"*({pointer('y', kept, 1)}) = {result};",
        ]
        return nest([dim.count for dim in kept], lines, shared=True)


_AFTER_IN_DOUBLE = {"mean": "{0} / {1}.0"}
_INTEGER_UPDATES = {
    "sum": "acc + value",
    "mean": "acc + value",
    "max": "value > acc ? value : acc",
    "min": "value < acc ? value : acc",
    "prod": "acc * value",
    "l1": "acc + (value < 0 ? -value : value)",
    "l2": "acc + value * value",
    "sum_square": "acc + value * value",
    "log_sum": "acc + value",
}
_INTEGER_AFTER = {
    "mean": "{0} / {1}",
    "l2": "std::sqrt(static_cast<double>({0}))",
    "log_sum": "std::log(static_cast<double>({0}))",
}

KERNELS = (ReduceKernel(),)
