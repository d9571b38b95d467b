"""Sums, means, extremes, ArgMax, running sums and products, local response normalisation.

Few results of many elements are reduced by groups of threads together, in threadgroup memory;
everything else by one thread for each texel of the result.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from mdlc.codegen.code import LayerCode
from mdlc.codegen.kernel import Step
from mdlc.codegen.metal.access import CHANNEL, lane_channel, pixel_at, substitute, thread_position
from mdlc.codegen.metal.backend import Metal
from mdlc.codegen.metal.image import LANES, Image
from mdlc.codegen.metal.index import Index
from mdlc.codegen.metal.kernel import (
    ComputeCode,
    ComputeKernel,
    Work,
    declaration,
    group_for,
    guard,
    image_of,
    layer,
    stored,
)
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.arg_reduce import ArgReduce
from mdlc.compiler.ops.cum_sum import CumSum
from mdlc.compiler.ops.lrn import Lrn
from mdlc.compiler.ops.reduce import Reduce
from mdlc.compiler.types import DType

GROUP = 64
# Elements of one result from which on a group of threads computes it together.
WORTH_GROUPS = 256

_FLOATS = (DType.F32, DType.F16)
# Start, step of a sum `s` with an element `v`, and what is made of it in the end.
_STEPS = {
    "sum": ("0", "{s} + {v}", "{s}"),
    "mean": ("0", "{s} + {v}", "{s} * {inverse}"),
    "max": ("-INFINITY", "max({s}, {v})", "{s}"),
    "min": ("INFINITY", "min({s}, {v})", "{s}"),
    "prod": ("1", "{s} * {v}", "{s}"),
    "l1": ("0", "{s} + abs({v})", "{s}"),
    "l2": ("0", "{s} + {v} * {v}", "sqrt({s})"),
    "sum_square": ("0", "{s} + {v} * {v}", "{s}"),
    "log_sum": ("0", "{s} + {v}", "log({s})"),
}
_JOIN = {"max": "max({a}, {b})", "min": "min({a}, {b})", "prod": "{a} * {b}"}
_INT_LIMITS = {"-INFINITY": "(-2147483647 - 1)", "INFINITY": "2147483647"}


def element_text(name: str, image: Image, at: list[Index]) -> str:
    """One element of a texture, read by itself."""
    inner = at[3] % LANES
    texel = f"{name}.read({pixel_at(at[2], at[1])}, {image.layer(at[0], at[3] // LANES)})"
    return f"{texel}.{'xyzw'[inner.fixed]}" if inner.fixed is not None else f"{texel}[{inner}]"


def passes_lanes(at: list[Index], source: Image, own: Image) -> bool:
    """Whether a thread's four channels are the same four of the source."""
    others = not any(index.uses(CHANNEL) for index in at[:3])
    same = at[3].text == CHANNEL and at[3].count > 1
    return same and others and source.channels == own.channels


class ReduceKernel(ComputeKernel):
    """Sums, means and extremes."""

    name = "reduce"
    layer = "Reduction"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, metal: Metal) -> bool:
        if not isinstance(node.op, Reduce) or not stored(node):
            return False
        if node.type.dtype in _FLOATS:
            return True
        return node.op.kind in ("sum", "max", "min", "prod") and node.type.dtype in (
            DType.I32,
            DType.I64,
        )

    def emit(self, step: Step, metal: Metal) -> LayerCode:
        node, op = step.node, step.node.op
        assert isinstance(op, Reduce)
        x, own = image_of(step.inputs[0]), image_of(step.output)
        shape = node.inputs[0].shape
        logical = own.logical(thread_position(own))
        rest = iter(logical)
        source: list[Index] = []
        loops = []
        count = math.prod(shape[a] for a in op.axes)
        for axis, length in enumerate(shape):
            if axis in op.axes:
                if op.keepdims:
                    next(rest)
                source.append(Index(f"i{axis}", length) if length > 1 else Index.of(0))
                if length > 1:
                    loops.append((f"i{axis}", length))
            else:
                source.append(next(rest))
        at = x.position(source)
        integer = own.element == "int"
        kind = "int" if integer else "float"
        start, step_, end = _STEPS[op.kind]
        if integer:
            start = _INT_LIMITS.get(start, start)
        inverse = f"{1.0 / count!r}f"
        vector = passes_lanes(at, x, own)
        grouped = vector and count >= WORTH_GROUPS and not integer and len(loops) <= 2
        name = f"reduce_{op.kind}_{x.label}_to_{own.label}"
        if grouped:
            return self._by_groups(op, x, own, at, loops, name)
        opened = [f"for (uint {i} = 0; {i} < {n}; ++{i}) {{" for i, n in loops]
        closed = ["}"] * len(loops)
        grid = (own.width, own.height, own.layers)
        if vector:
            wide = f"{kind}4"
            texel = f"x.read({pixel_at(at[2], at[1])}, {self._same_slice(x, own, at)})"
            update = step_.format(s="sum", v="value")
            result = end.format(s="sum", inverse=inverse)
            lines = [f"{wide} sum = {wide}({start});", *opened]
            lines += [f"const {wide} value = {wide}({texel});", f"sum = {update};", *closed]
            lines.append(f"y.write({own.element}4({result}), position.xy, {layer(own)});")
        else:
            lines = [f"{own.element}4 result = {own.element}4(0);"]
            for lane in range(LANES):
                channel = lane_channel(own, lane)
                if channel is None:
                    continue
                picked = [substitute(index, channel) for index in at]
                update = step_.format(s="sum", v="value")
                result = end.format(s="sum", inverse=inverse)
                lines += ["{", f"{kind} sum = {start};", *opened]
                lines += [
                    f"const {kind} value = {kind}({element_text('x', x, picked)});",
                    f"sum = {update};",
                    *closed,
                    f"result.{'xyzw'[lane]} = {own.element}({result});",
                    "}",
                ]
            lines.append(f"y.write(result, position.xy, {layer(own)});")
        textures = [(x.element, "read", "x"), (own.element, "write", "y")]
        comment = op.words
        head = declaration(textures, [])
        body = guard(grid) + "\n".join(lines)
        work = Work(0, node.inputs[0].type.size)
        return ComputeCode(name, comment, head, body, grid=grid, group=group_for(grid), work=work)

    @staticmethod
    def _same_slice(x: Image, own: Image, at: list[Index], z: str = "position.z") -> str:
        slice_ = Index(z, own.layers) % own.slices
        return str(x.layer(at[0], slice_))

    def _by_groups(
        self,
        op: Reduce,
        x: Image,
        own: Image,
        at: list[Index],
        loops: list[tuple[str, int]],
        name: str,
    ) -> ComputeCode:
        """A group for every texel of the result: its threads share the elements out."""
        total = math.prod(n for _, n in loops)
        start, step_, end = _STEPS[op.kind]
        rest = Index("i", total)
        names: dict[str, Index] = {}
        for label, length in reversed(loops):
            names[label] = rest % length
            rest = rest // length
        lines = [f"float4 sum = float4({start});"]
        lines.append(f"for (uint i = lane; i < {total}; i += {GROUP}) {{")
        lines += [f"const uint {label} = {index};" for label, index in names.items()]
        moved = [_renamed(index) for index in at]
        texel = (
            f"x.read({pixel_at(moved[2], moved[1])}, {self._same_slice(x, own, moved, 'group.z')})"
        )
        lines.append(f"const float4 value = float4({texel});")
        lines.append(f"sum = {step_.format(s='sum', v='value')};")
        lines += ["}", *tree(_JOIN.get(op.kind, "{a} + {b}"), "shared", "sum")]
        result = end.format(s="shared[0]", inverse=f"{1.0 / total!r}f")
        where = str(Index("group.z", own.layers) + own.first)
        if own.pitch != own.slices:
            z = Index("group.z", own.layers)
            where = str(own.layer(z // own.slices, z % own.slices))
        lines += [
            "if (lane == 0) {",
            f"y.write({own.element}4({result}), uint2(group.x, group.y), {where});",
            "}",
        ]
        head = declaration(
            [(x.element, "read", "x"), (own.element, "write", "y")],
            [],
            extra=group_arguments(lines),
            position=False,
        )
        comment = f"{op.words}: a group of threads for each texel."
        body = "\n".join(lines)
        grid = (own.width * GROUP, own.height, own.layers)
        return ComputeCode(
            name,
            comment,
            head,
            body,
            grid=grid,
            group=(GROUP, 1, 1),
            shared_bytes=GROUP * 16,
            work=Work(0, math.prod(x.extent)),
        )


def group_arguments(lines: Sequence[str]) -> list[str]:
    """Parameters of a kernel with these statements, whose threads work together."""
    parameters = [
        "threadgroup float4* shared [[threadgroup(0)]]",
        "uint lane [[thread_index_in_threadgroup]]",
    ]
    if any(re.search(r"\bgroup\.", line) for line in lines):
        parameters.append("uint3 group [[threadgroup_position_in_grid]]")
    return parameters


def tree(join: str, memory: str, value: str) -> list[str]:
    """Statements that join every thread's value in memory[0], for all threads to read."""
    joined = join.format(a=f"{memory}[lane]", b=f"{memory}[lane + half_count]")
    return [
        f"{memory}[lane] = {value};",
        "threadgroup_barrier(mem_flags::mem_threadgroup);",
        f"for (uint half_count = {GROUP // 2}; half_count > 0; half_count /= 2) {{",
        "if (lane < half_count) {",
        f"{memory}[lane] = {joined};",
        "}",
        "threadgroup_barrier(mem_flags::mem_threadgroup);",
        "}",
    ]


def _renamed(index: Index) -> Index:
    """An expression on a thread's position as one on its group's."""
    return index.with_variables(
        {f"position.{axis}": Index(f"group.{axis}", 2**31) for axis in "xyz"}
    )


class ArgReduceKernel(ComputeKernel):
    """The place of an extreme along an axis."""

    name = "arg_reduce"
    layer = "ArgReduce"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, metal: Metal) -> bool:
        return isinstance(node.op, ArgReduce) and stored(node)

    def emit(self, step: Step, metal: Metal) -> LayerCode:
        node, op = step.node, step.node.op
        assert isinstance(op, ArgReduce)
        x, own = image_of(step.inputs[0]), image_of(step.output)
        shape = node.inputs[0].shape
        logical = list(own.logical(thread_position(own)))
        length = shape[op.axis]
        index = Index("i", length) if length > 1 else Index.of(0)
        if op.keepdims:
            logical[op.axis] = index
        else:
            logical.insert(op.axis, index)
        at = x.position(logical)
        compare = (">" if op.kind == "max" else "<") + ("=" if op.last else "")
        kind = x.element
        lines = ["int4 result = int4(0);"]
        for lane in range(LANES):
            channel = lane_channel(own, lane)
            if channel is None:
                continue
            picked = [substitute(each, channel) for each in at]
            first = [each.with_variables({"i": Index.of(0)}) for each in picked]
            if length == 1:
                continue
            inside = [each.with_variables({"i": Index.of(1)}) for each in picked]
            inside = picked if length > 2 else inside
            lines += [
                "{",
                f"{kind} best = {element_text('x', x, first)};",
                f"for (uint i = 1; i < {length}; ++i) {{" if length > 2 else "{",
                f"const {kind} value = {element_text('x', x, inside)};",
                f"if (value {compare} best) {{",
                "best = value;",
                f"result.{'xyzw'[lane]} = {'int(i)' if length > 2 else 1};",
                "}",
                "}",
                "}",
            ]
        grid = (own.width, own.height, own.layers)
        lines.append(f"y.write(result, position.xy, {layer(own)});")
        name = f"arg{op.kind}_{x.label}_axis{x.type.physical_axis(op.axis)}"
        head = declaration([(kind, "read", "x"), ("int", "write", "y")], [])
        comment = f"{op.words}"
        body = guard(grid) + "\n".join(lines)
        work = Work(0, node.inputs[0].type.size)
        return ComputeCode(name, comment, head, body, grid=grid, group=group_for(grid), work=work)


class CumSumKernel(ComputeKernel):
    """Running sums and products: every element adds up or multiplies those before it."""

    name = "cumsum"
    layer = "Reduction"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, metal: Metal) -> bool:
        return isinstance(node.op, CumSum) and stored(node)

    def emit(self, step: Step, metal: Metal) -> LayerCode:
        node, op = step.node, step.node.op
        assert isinstance(op, CumSum)
        x, own = image_of(step.inputs[0]), image_of(step.output)
        length = node.shape[op.axis]
        kind = "int" if own.element == "int" else "float"
        name, start, update = ("product", 1, "*=") if op.product else ("sum", 0, "+=")
        lines = [f"{own.element}4 result = {own.element}4(0);"]
        for lane in range(LANES):
            channel = lane_channel(own, lane)
            if channel is None:
                continue
            logical = [substitute(i, channel) for i in own.logical(thread_position(own))]
            here = logical[op.axis]
            logical[op.axis] = Index("i", length) if length > 1 else Index.of(0)
            first, last = Index.of(0), here if op.exclusive else here + 1
            if op.reverse:
                first, last = (here + 1 if op.exclusive else here), Index.of(length)
            opening = f"for (uint i = {first}; i < {last}; ++i) {{"
            if first.fixed is not None and last.fixed == first.fixed + 1:
                logical[op.axis], opening = first, "{"
            lines += [
                "{",
                f"{kind} {name} = {start};",
                opening,
                f"{name} {update} {kind}({element_text('x', x, x.position(logical))});",
                "}",
                f"result.{'xyzw'[lane]} = {own.element}({name});",
                "}",
            ]
        grid = (own.width, own.height, own.layers)
        lines.append(f"y.write(result, position.xy, {layer(own)});")
        label = f"running_{name}_{own.label}_axis{own.type.physical_axis(op.axis)}"
        head = declaration([(x.element, "read", "x"), (own.element, "write", "y")], [])
        comment = f"{op.words}"
        body = guard(grid) + "\n".join(lines)
        work = Work(0, node.type.size * length // 2)
        return ComputeCode(label, comment, head, body, grid=grid, group=group_for(grid), work=work)


class LrnKernel(ComputeKernel):
    """Local response normalisation over a window of channels."""

    name = "lrn"
    layer = "LRN"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, metal: Metal) -> bool:
        return isinstance(node.op, Lrn) and stored(node) and node.type.dtype in _FLOATS

    def emit(self, step: Step, metal: Metal) -> LayerCode:
        node, op = step.node, step.node.op
        assert isinstance(op, Lrn)
        x, own = image_of(step.inputs[0]), image_of(step.output)
        at = x.position(own.logical(thread_position(own)))
        at[3] = Index("uint(i)", own.channels)
        lines = ["float4 result = float4(0.0f);"]
        after = op.size - op.before
        for lane in range(LANES):
            channel = lane_channel(own, lane)
            if channel is None:
                continue
            here = [*at[:3], channel]
            lines += [
                "{",
                f"const int c = int({channel});",
                "float sum = 0.0f;",
                f"for (int i = max(c - {op.before}, 0); "
                f"i < min(c + {after}, {own.channels}); ++i) {{",
                f"const float value = float({element_text('x', x, at)});",
                "sum += value * value;",
                "}",
                f"const float own = float({element_text('x', x, here)});",
                f"result.{'xyzw'[lane]} = own * pow({float(op.bias)}f + "
                f"{op.alpha / op.size!r}f * sum, {-float(op.beta)}f);",
                "}",
            ]
        grid = (own.width, own.height, own.layers)
        lines.append(f"y.write({own.element}4(result), position.xy, {layer(own)});")
        name = f"lrn{op.size}_{own.label}"
        head = declaration([(x.element, "read", "x"), (own.element, "write", "y")], [])
        comment = f"{op.words}"
        body = guard(grid) + "\n".join(lines)
        work = Work(0, node.type.size * (op.size + 10))
        return ComputeCode(name, comment, head, body, grid=grid, group=group_for(grid), work=work)


KERNELS = (ReduceKernel(), ArgReduceKernel(), CumSumKernel(), LrnKernel())
