"""Softmax and LogSoftmax: the largest element, the sum of exponentials, the quotients."""

from __future__ import annotations

from mdlc.codegen.code import LayerCode
from mdlc.codegen.kernel import Step
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
    stored,
)
from mdlc.codegen.metal.kernels.reduce import GROUP, WORTH_GROUPS, group_arguments, tree
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.softmax import Softmax
from mdlc.compiler.types import DType


class SoftmaxKernel(ComputeKernel):
    """Along the channels: a thread or a group of threads for each pixel; else by texels."""

    name = "softmax"
    layer = "Softmax"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, metal: Metal) -> bool:
        floats = node.type.dtype in (DType.F32, DType.F16)
        if not isinstance(node.op, Softmax) or not stored(node) or not floats:
            return False
        # Axes beyond the three of an image are folded together.
        return node.type.physical_axis(node.op.axis) >= node.type.rank - 4

    def emit(self, step: Step, metal: Metal) -> LayerCode:
        node, op = step.node, step.node.op
        assert isinstance(op, Softmax)
        x, y = image_of(step.inputs[0]), image_of(step.output)
        back = node.type.rank - 1 - node.type.physical_axis(op.axis)
        if back == 0:
            if y.channels >= WORTH_GROUPS and y.width * y.height * y.images <= 1024:
                return self._by_groups(op, x, y)
            return self._by_pixels(op, x, y)
        return self._by_texels(op, x, y, back)

    @staticmethod
    def _result(op: Softmax, y: Image, value: str, top: str, total: str) -> str:
        if op.log:
            return f"{y.element}4({value} - {top} - log({total}))"
        return f"{y.element}4(exp({value} - {top}) / {total})"

    def _by_texels(self, op: Softmax, x: Image, y: Image, back: int) -> ComputeCode:
        length = (y.width, y.height, y.images)[back - 1]
        grid = [y.width, y.height, y.layers]
        column, row = Index("position.x", y.width), Index("position.y", y.height)
        z = Index("position.z", y.layers)
        image, slice_ = z // y.slices, z % y.slices
        along = Index("i", length) if length > 1 else Index.of(0)
        if back == 1:
            grid[0], column = 1, along
        elif back == 2:
            grid[1], row = 1, along
        else:
            grid[2], image = y.slices, along
            slice_ = Index("position.z", y.slices)
        at = f"uint2({column}, {row})"
        value = f"float4(x.read({at}, {x.layer(image, slice_)}))"
        loop = f"for (uint i = 0; i < {length}; ++i) {{"
        lines = [
            "float4 top = float4(-INFINITY);", loop, f"top = max(top, {value});", "}",
            "float4 total = float4(0.0f);", loop, f"total += exp({value} - top);", "}",
            loop,
            f"const float4 value = {value};",
            f"y.write({self._result(op, y, 'value', 'top', 'total')}, {at}, "
            f"{y.layer(image, slice_)});",
            "}",
        ]  # fmt: skip
        return self._code(op, x, y, (grid[0], grid[1], grid[2]), lines, f"_axis{back}")

    def _read(self, x: Image, y: Image, at: str, layer: str, index: str) -> list[str]:
        """Statements that read a texel; lanes behind the last channel never win and add nothing."""
        lines = [f"float4 value = float4(x.read({at}, {layer}));"]
        if y.channels % LANES:
            lanes = "xyzw"[y.channels % LANES :]
            low = f"float{len(lanes)}(-INFINITY)" if len(lanes) > 1 else "-INFINITY"
            clear = f"value.{lanes} = {low};"
            if y.slices == 1:
                lines.append(clear)
            else:
                lines += [f"if ({index} == {y.slices - 1}) {{", clear, "}"]
        return lines

    def _by_pixels(self, op: Softmax, x: Image, y: Image) -> ComputeCode:
        grid = (y.width, y.height, y.images)
        image = Index("position.z", y.images)
        slice_ = Index("s", y.slices)
        read = self._read(x, y, "position.xy", str(x.layer(image, slice_)), "s")
        loop = [f"for (uint s = 0; s < {y.slices}; ++s) {{"] if y.slices > 1 else ["{"]
        largest = "max(max(value.x, value.y), max(value.z, value.w))"
        result = self._result(op, y, "value", "float4(top)", "float4(total)")
        if op.log:
            result = f"{y.element}4(value - float4(top + log(total)))"
        lines = [
            "float top = -INFINITY;", *loop, *read, f"top = max(top, {largest});", "}",
            "float total = 0.0f;", *loop, *read,
            "total += dot(exp(value - float4(top)), float4(1.0f));", "}",
            *loop, *read,
            *self._finite(op, y),
            f"y.write({result}, position.xy, {y.layer(image, slice_)});", "}",
        ]  # fmt: skip
        return self._code(op, x, y, grid, lines)

    @staticmethod
    def _finite(op: Softmax, y: Image) -> list[str]:
        """Before a logarithm of nothing is written: zeros instead."""
        return ["value = max(value, float4(-60000.0f));"] if op.log and y.channels % LANES else []

    def _by_groups(self, op: Softmax, x: Image, y: Image) -> ComputeCode:
        image, slice_ = Index("group.z", y.images), Index("s", y.slices)
        at = "group.xy"
        read = self._read(x, y, at, str(x.layer(image, slice_)), "s")
        loop = f"for (uint s = lane; s < {y.slices}; s += {GROUP}) {{"
        lines = [
            "float4 top = float4(-INFINITY);", loop, *read, "top = max(top, value);", "}",
            *tree("max({a}, {b})", "shared", "top"),
            "const float4 tops = shared[0];",
            "const float largest = max(max(tops.x, tops.y), max(tops.z, tops.w));",
            "threadgroup_barrier(mem_flags::mem_threadgroup);",
            "float4 total = float4(0.0f);", loop, *read,
            "total += exp(value - float4(largest));", "}",
            *tree("{a} + {b}", "shared", "total"),
            "const float sum = dot(shared[0], float4(1.0f));",
            loop, *read,
            *self._finite(op, y),
            "y.write("
            + (
                f"{y.element}4(value - float4(largest + log(sum)))"
                if op.log
                else f"{y.element}4(exp(value - float4(largest)) / float4(sum))"
            )
            + f", {at}, {y.layer(image, slice_)});",
            "}",
        ]  # fmt: skip
        name = f"{'log_' if op.log else ''}softmax_{y.label}"
        head = declaration(
            [(x.element, "read", "x"), (y.element, "write", "y")],
            [],
            extra=group_arguments(lines),
            position=False,
        )
        comment = f"{op.words}: a group of threads for each pixel."
        body = "\n".join(lines)
        return ComputeCode(
            name,
            comment,
            head,
            body,
            grid=(y.width * GROUP, y.height, y.images),
            group=(GROUP, 1, 1),
            shared_bytes=GROUP * 16,
            work=Work(0, 12 * y.images * y.height * y.width * y.channels),
        )

    @staticmethod
    def _code(
        op: Softmax, x: Image, y: Image, grid: tuple[int, int, int], lines: list[str], end: str = ""
    ) -> ComputeCode:
        name = f"{'log_' if op.log else ''}softmax_{y.label}{end}"
        head = declaration([(x.element, "read", "x"), (y.element, "write", "y")], [])
        comment = f"{op.words}"
        body = guard(grid) + "\n".join(lines)
        work = Work(0, 12 * y.images * y.height * y.width * y.channels)
        return ComputeCode(name, comment, head, body, grid=grid, group=group_for(grid), work=work)


KERNELS = (SoftmaxKernel(),)
