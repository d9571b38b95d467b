"""Maximum and average pooling."""

from __future__ import annotations

import numpy as np

from mdlc.codegen.code import LayerCode
from mdlc.codegen.kernel import Schedule, Step
from mdlc.codegen.metal.backend import Metal
from mdlc.codegen.metal.image import Image
from mdlc.codegen.metal.index import Index
from mdlc.codegen.metal.kernel import (
    ComputeCode,
    ComputeKernel,
    Work,
    declaration,
    group_for,
    guard,
    image_of,
    place,
    stored,
)
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.average_pool2d import AveragePool2D
from mdlc.compiler.ops.max_pool2d import MaxPool2D
from mdlc.compiler.types import Array, DType


class PoolKernel(ComputeKernel):
    """A thread for each output texel; taps outside the image are left out of the loops."""

    name = "pool"
    layer = "Pooling"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, metal: Metal) -> bool:
        floats = node.type.dtype in (DType.F32, DType.F16)
        return isinstance(node.op, MaxPool2D | AveragePool2D) and stored(node) and floats

    def cost(self, node: Node, schedule: Schedule, metal: Metal) -> float:
        assert isinstance(node.op, MaxPool2D | AveragePool2D)
        taps = node.op.window.kernel[0] * node.op.window.kernel[1]
        image = Image.of(node.type)
        return image.layers * image.height * image.width * taps / 16

    def emit(self, step: Step, metal: Metal) -> LayerCode:
        node, op = step.node, step.node.op
        assert isinstance(op, MaxPool2D | AveragePool2D)
        x, y = image_of(step.inputs[0]), image_of(step.output)
        window = op.window
        image, slice_ = place(y)
        grid = (y.width, y.height, y.layers)
        largest = isinstance(op, MaxPool2D)
        kind = f"{x.element}4" if largest else "float4"
        lines = []
        loops = []
        coordinates = []
        for axis, (name, label, size) in enumerate(
            (("y", "row", x.height), ("x", "column", x.width))
        ):
            count, dilation = window.kernel[axis], window.dilation[axis]
            before, stride = window.pads[axis], window.stride[axis]
            at = Index(f"position.{name}", (y.height, y.width)[axis]) * stride
            inside = not before and (at.count - 1) + (count - 1) * dilation < size
            k = f"k{name}"
            if inside:
                loops.append(f"for (uint {k} = 0; {k} < {count}; ++{k}) {{")
                coordinates.append(str(at + Index(k, count) * dilation))
                continue
            lines.append(f"const int {label} = int({at}){f' - {before}' if before else ''};")
            loops.append(f"for (int {k} = 0; {k} < {count}; ++{k}) {{")
            step_ = f" * {dilation}" if dilation > 1 else ""
            loops.append(f"const int {label}_at = {label} + {k}{step_};")
            loops.append(f"if ({label}_at < 0 || {label}_at >= {size}) {{\ncontinue;\n}}")
            coordinates.append(f"uint({label}_at)")
        first = f"{kind}(-INFINITY)" if largest else "float4(0.0f)"
        lines.append(f"{kind} sum = {first};")
        texel = f"x.read(uint2({coordinates[1]}, {coordinates[0]}), {x.layer(image, slice_)})"
        inner = [f"sum = max(sum, {texel});"] if largest else [f"sum += float4({texel});"]
        result = "sum"
        if isinstance(op, AveragePool2D):
            counts = op.counts((x.height, x.width))
            if (counts == counts[0, 0]).all():
                divisor = f"{float(counts[0, 0])}f"
            elif step.weights:
                divisor = "rows[position.y] * columns[position.x]"
            else:
                lines.append("float count = 0.0f;")
                inner.append("count += 1.0f;")
                divisor = "count"
            result = f"{y.element}4(sum / float4({divisor}))"
        elif x.element != y.element:
            result = f"{y.element}4(sum)"
        lines += [*loops, *inner, "}", "}"]
        lines.append(f"y.write({result}, position.xy, {y.layer(image, slice_)});")
        word = "maxpool" if largest else "avgpool"
        kernel = "x".join(map(str, window.kernel))
        size_ = f"{x.height}x{x.width}x{x.channels}_to_{y.height}x{y.width}"
        name = f"{word}{kernel}_s{max(window.stride)}_{size_}"
        taps = window.kernel[0] * window.kernel[1] * node.type.size
        buffers = [("device const float", key) for key in step.weights]
        head = declaration([(x.element, "read", "x"), (y.element, "write", "y")], buffers)
        comment = f"{op.words}"
        body = guard(grid) + "\n".join(lines)
        work = Work(taps, 0) if largest else Work(0, taps)
        return ComputeCode(name, comment, head, body, grid=grid, group=group_for(grid), work=work)

    def pack(self, node: Node, schedule: Schedule, metal: Metal) -> dict[str, Array]:
        op = node.op
        if not isinstance(op, AveragePool2D) or not op.include_pad:
            return {}
        counts = op.counts(node.inputs[0].shape[2:])
        if (counts == counts[0, 0]).all():
            return {}
        # The number of elements is a product: of rows by columns.
        return {
            "rows": counts[:, 0].astype(np.float32),
            "columns": (counts[0] / counts[0, 0]).astype(np.float32),
        }


KERNELS = (PoolKernel(),)
