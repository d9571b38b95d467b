"""Pooling in NHWC: vectors of channels, windows clipped when the code is emitted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mdlc.codegen.formula import literal
from mdlc.codegen.isa import Isa
from mdlc.codegen.isas.generic import ISA as SCALAR
from mdlc.codegen.kernel import Kernel, LayerCode, Microkernel, Schedule, Step
from mdlc.codegen.product import offset
from mdlc.codegen.runs import Run, group_runs, inside_taps
from mdlc.codegen.strides import nest
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.average_pool2d import AveragePool2D
from mdlc.compiler.ops.max_pool2d import MaxPool2D
from mdlc.compiler.types import Array, DType


def pool_microkernel(average: bool, isa: Isa, tail: bool) -> Microkernel:
    """One window for all channels, such as maxpool_f32_neon<taps y, taps x, steps..., channels>."""
    kind = "averagepool" if average else "maxpool"
    name = f"{kind}{'_tail' if tail else ''}_f32_{isa.suffix}"
    combine = "add" if average else "max"
    start = "0.0F" if average else literal(-np.inf)
    vector_start = isa.set1(start)
    step = "c + row * kRowStep + column * kPixelStep"

    def window(kind: str, first: str, update: str, result: str) -> str:
        return f"""    {kind} acc = {first};
    for (int row = 0; row < kRows; ++row) {{
      for (int column = 0; column < kColumns; ++column) {{
        acc = {update};
      }}
    }}
    {result};
"""

    def result(target: Isa) -> str:
        value = target.op("mul", "acc", target.set1("scale")) if average else "acc"
        return target.store("y + c", value)

    def loop(target: Isa, head: str, first: str) -> str:
        update = target.op(combine, target.load(f"x + {step}"), "acc")
        return head + window(target.vector, first, update, result(target)) + "  }\n"

    bound = f"kChannels - {isa.lanes - 1}" if tail else "kChannels"
    if tail:
        body = "  int c = 0;\n" + loop(
            isa, f"  for (; c < {bound}; c += {isa.lanes}) {{\n", vector_start
        )
        body += loop(SCALAR, "  for (; c < kChannels; ++c) {\n", start)
    else:
        step_text = f"c += {isa.lanes}" if isa.lanes > 1 else "++c"
        body = loop(isa, f"  for (int c = 0; c < {bound}; {step_text}) {{\n", vector_start)
    formula = "scale * sum of" if average else "max of"
    parameters = (
        "const float* x, float* y" if not average else "const float* x, float scale, float* y"
    )
    text = (
        f"// y[c] = {formula} x[row][column][c] over a window of kRows x kColumns; x: NHWC.\n"
        "template <int kRows, int kColumns, int kRowStep, int kPixelStep, int kChannels>\n"
        f"inline void {name}({parameters}) {{\n{body}}}\n"
    )
    return Microkernel(name, text, includes=() if average else ("limits",))


class Pool(Kernel):
    """Max and average pooling."""

    name = "pool"
    layer = "Pooling"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, isa: Isa) -> bool:
        return isinstance(node.op, MaxPool2D | AveragePool2D) and node.type.dtype is DType.F32

    def cost(self, node: Node, schedule: Schedule, isa: Isa) -> float:
        assert isinstance(node.op, MaxPool2D | AveragePool2D)
        taps = node.op.window.kernel[0] * node.op.window.kernel[1]
        return node.type.size / isa.lanes * taps

    def _uniform(self, node: Node) -> float | None:
        """The one factor of an average pooling, or None where windows differ."""
        assert isinstance(node.op, AveragePool2D)
        counts = node.op.counts(node.inputs[0].shape[2:])
        return 1.0 / float(counts[0, 0]) if np.all(counts == counts[0, 0]) else None

    def pack(self, node: Node, schedule: Schedule, isa: Isa) -> dict[str, Array]:
        if not isinstance(node.op, AveragePool2D) or self._uniform(node) is not None:
            return {}
        counts = node.op.counts(node.inputs[0].shape[2:])
        return {"scale": (1.0 / counts).astype(np.float32).reshape(-1)}

    def emit(self, step: Step, isa: Isa) -> LayerCode:
        node, x, y = step.node, step.inputs[0], step.output
        op = node.op
        assert isinstance(op, MaxPool2D | AveragePool2D)
        window = op.window
        images, channels, height, width = node.inputs[0].shape
        rows, columns = node.shape[2:]
        average = isinstance(op, AveragePool2D)
        uniform = self._uniform(node) if average else None
        tail = isa.lanes > 1 and channels % isa.lanes != 0
        row = pool_microkernel(average, isa, tail)
        lines = []
        row_runs = self._runs(rows, height, window.kernel[0], 0, op)
        column_runs = self._runs(columns, width, window.kernel[1], 1, op)
        for down in row_runs:
            for across in column_runs:
                numbers = (
                    down.kind[1],
                    across.kind[1],
                    window.dilation[0] * width * x.pitch,
                    window.dilation[1] * x.pitch,
                    channels,
                )
                top = down.first * window.stride[0] - window.pads[0]
                top += down.kind[0] * window.dilation[0]
                left = across.first * window.stride[1] - window.pads[1]
                left += across.kind[0] * window.dilation[1]
                loops = [(images, "i0"), (down.count, "i1"), (across.count, "i2")]

                def at(base: str, steps: Sequence[int], fixed: int, loops=loops) -> str:  # type: ignore[no-untyped-def]
                    terms = [(n, v, s) for (n, v), s in zip(loops, steps, strict=True)]
                    return offset(base, *terms, fixed=fixed)

                source = at(
                    "x",
                    (
                        height * width * x.pitch,
                        window.stride[0] * width * x.pitch,
                        window.stride[1] * x.pitch,
                    ),
                    (top * width + left) * x.pitch,
                )
                out = (rows * columns * y.pitch, columns * y.pitch, y.pitch)
                first = down.first * columns + across.first
                arguments = [source]
                if average:
                    scale = f"*({at('scale', (0, columns, 1), first)})"
                    arguments.append(literal(uniform) if uniform is not None else scale)
                arguments.append(at("y", out, first * y.pitch))
                call = f"{row.name}<{', '.join(map(str, numbers))}>({', '.join(arguments)});"
                lines.append(nest([images, down.count, across.count], call, shared=True))
        kh, kw = window.kernel
        stride = f"s{window.stride[0]}" if window.stride != (1, 1) else ""
        kind = "averagepool" if average else "maxpool"
        name = f"{kind}{kh}x{kw}{stride}_{height}x{width}x{channels}"
        scale = "const float* scale, " if average and uniform is None else ""
        text = (
            f"// {op}\nvoid {name}({scale}const float* x, float* y) {{\n"
            + "\n".join(lines)
            + "\n}\n"
        )
        return LayerCode(name, text, (row,))

    @staticmethod
    def _runs(
        count: int, length: int, kernel: int, axis: int, op: MaxPool2D | AveragePool2D
    ) -> list[Run]:
        """Positions with the same taps inside the input: kind is (first tap, taps)."""
        window = op.window
        return group_runs(
            [
                (
                    position,
                    inside_taps(
                        position * window.stride[axis] - window.pads[axis],
                        kernel,
                        window.dilation[axis],
                        length,
                    ),
                )
                for position in range(count)
            ]
        )


KERNELS = (Pool(),)
