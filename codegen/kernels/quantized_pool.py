"""Pooling of 8-bit integers in NHWC: vectors of channels, windows clipped at compile time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mdlc.codegen.code import C_TYPES, Body, Call, Function, Microkernel, Pointer, Value, offset
from mdlc.codegen.gemm.loops_int8 import READS_PAST
from mdlc.codegen.gemm.runs import Run, group_runs, inside_taps
from mdlc.codegen.gemm.strides import nest
from mdlc.codegen.isa.base import KernelIsa, int8_of
from mdlc.codegen.isa.int8 import SATURATING_SHIFT, SCALAR, Int8, least_shift, pack_fields
from mdlc.codegen.isa.int8_result import OutputStage
from mdlc.codegen.kernel import Kernel, Schedule, Step
from mdlc.compiler.fixed_point import fixed_point, limits
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.max_pool2d import MaxPool2D
from mdlc.compiler.ops.quantized_average_pool2d import QuantizedAveragePool2D
from mdlc.compiler.types import Array, DType
from mdlc.compiler.window import Window
from mdlc.compiler.words import counted

BYTES = (DType.I8, DType.U8)
_AT = "x + c + row * kRowStep + column * kColumnStep"


def _runs(count: int, length: int, axis: int, window: Window) -> list[Run]:
    """Positions with the same taps inside the input: kind is (first tap, taps)."""
    step, before = window.stride[axis], window.pads[axis]
    kernel, dilation = window.kernel[axis], window.dilation[axis]
    return group_runs(
        [
            (position, inside_taps(position * step - before, kernel, dilation, length))
            for position in range(count)
        ]
    )


class BytePool(Kernel):
    """What maximum and average have in common: one call for all channels of a window."""

    layer = "QuantizedPooling"
    pitched_input = True
    pitched_output = True
    reads_past = READS_PAST

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        kernel = self._window(node).kernel
        lanes = int8_of(isa).byte_lanes if isa.int8 else 1
        return node.type.size * kernel[0] * kernel[1] / max(lanes / 4, 1)

    @staticmethod
    def _window(node: Node) -> Window:
        assert isinstance(node.op, MaxPool2D | QuantizedAveragePool2D)
        return node.op.window

    def _emit(
        self, step: Step, kind: str, row: Microkernel, template: Sequence[int], scale: bool
    ) -> Function:
        """Loops over all windows; `scale`: whether each has numbers of its own, two apart."""
        node, x, y = step.node, step.inputs[0], step.output
        window = self._window(node)
        images, channels, height, width = node.inputs[0].shape
        rows, columns = node.shape[2:]
        lines: list[Body] = []
        for down in _runs(rows, height, 0, window):
            for across in _runs(columns, width, 1, window):
                top = down.first * window.stride[0] - window.pads[0]
                top += down.kind[0] * window.dilation[0]
                left = across.first * window.stride[1] - window.pads[1]
                left += across.kind[0] * window.dilation[1]
                numbers = (
                    down.kind[1],
                    across.kind[1],
                    window.dilation[0] * width * x.pitch,
                    window.dilation[1] * x.pitch,
                    channels,
                    *template,
                )
                loops = [(images, "i0"), (down.count, "i1"), (across.count, "i2")]

                def at(base: str, steps: Sequence[int], fixed: int, loops=loops) -> Pointer:  # type: ignore[no-untyped-def]
                    terms = [(n, v, s) for (n, v), s in zip(loops, steps, strict=True)]
                    return offset(base, *terms, fixed=fixed)

                down_step, across_step = window.stride[0] * width, window.stride[1]
                first = down.first * columns + across.first
                arguments: list[Value] = [
                    at(
                        "x",
                        (height * width * x.pitch, down_step * x.pitch, across_step * x.pitch),
                        (top * width + left) * x.pitch,
                    )
                ]
                if scale:
                    arguments.append(at("scale", (0, 3 * columns, 3), 3 * first))
                out = (rows * columns * y.pitch, columns * y.pitch, y.pitch)
                arguments.append(at("y", out, first * y.pitch))
                call = Call(row, tuple(arguments), numbers)
                lines.append(nest([images, down.count, across.count], call, shared=True))
        kh, kw = window.kernel
        stride = f"s{window.stride[0]}" if window.stride != (1, 1) else ""
        name = f"{kind}{kh}x{kw}{stride}_{height}x{width}x{channels}"
        return step.function(name, *lines, comment=[node.op.words])


class ByteMaxPool(BytePool):
    """The largest byte of each window."""

    name = "quantized_max_pool"

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        return isinstance(node.op, MaxPool2D) and node.type.dtype in BYTES

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        return self._emit(step, "qmaxpool", _max_row(isa, step.node.type.dtype), (), False)


class ByteAveragePool(BytePool):
    """The rescaled sum of each window."""

    name = "quantized_average_pool"

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        return isinstance(node.op, QuantizedAveragePool2D)

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        """For every window: what its sum starts from, and the two numbers that rescale it."""
        op = node.op
        assert isinstance(op, QuantizedAveragePool2D)
        height, width = node.inputs[0].shape[2:]
        multiplier, shift = (
            v.reshape(-1) for v in fixed_point(op.scale / op.counts((height, width)))
        )
        shift = np.maximum(shift, SATURATING_SHIFT)
        inside = op.window.patches(np.ones((1, 1, height, width)), 0.0).sum((4, 5)).reshape(-1)
        bias = -inside.astype(np.int64) * op.x_zero
        fields = ("bias", "multiplier", "shift")
        return {"scale": pack_fields(fields, bias, multiplier, shift, 0, 1)}

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        op = step.node.op
        assert isinstance(op, QuantizedAveragePool2D)
        source = step.node.inputs[0].type.dtype
        stage = OutputStage(source, op.dtype, op.y_zero, op.low, op.high)
        row = _average_row(isa, stage)
        numbers = tuple(stage.parameters.values())
        return self._emit(step, "qaveragepool", row, numbers, True)


def _window_loops(kind: str, start: str, update: str) -> str:
    return f"""\
{kind} acc = {start};
for (int row = 0; row < kRows; ++row) {{
  for (int column = 0; column < kColumns; ++column) acc = {update};
}}
"""


def _channels(lanes: int, body: str, scalar: str) -> str:
    if lanes == 1:
        return f"for (int c = 0; c < kChannels; ++c) {{\n{scalar}}}"
    return (
        f"int c = 0;\nfor (; c <= kChannels - {lanes}; c += {lanes}) {{\n{body}}}\n"
        f"for (; c < kChannels; ++c) {{\n{scalar}}}"
    )


_PARAMETERS = ["kRows", "kColumns", "kRowStep", "kColumnStep", "kChannels"]


def _max_row(isa: KernelIsa, kind: DType) -> Microkernel:
    int8 = isa.int8
    c_type, low = C_TYPES[kind], limits(kind)[0]
    at = _AT.removeprefix("x + ")
    scalar = _window_loops(c_type, str(low), f"x[{at}] > acc ? x[{at}] : acc") + "y[c] = acc;\n"
    body, lanes = "", 1
    if int8:
        spell, lanes = int8.spell, int8.byte_lanes
        load, name = spell[f"load_bytes_{kind.value}"], kind.value
        update = spell[f"max_{name}"].format("acc", load.format(_AT))
        body = _window_loops(spell[f"bytes_{name}"], load.format("x + c"), update)
        body += f"{spell[f'put_bytes_{name}'].format('y + c', 'acc')};\n"
    name = f"maxpool_{kind.value}_{isa.suffix}"
    text = (
        f"// y[c] = max of x[row][column][c] over the window, {counted(lanes, 'channel')} at a "
        "time.\n"
        f"template <{', '.join(f'int {p}' for p in _PARAMETERS)}>\n"
        f"inline void {name}(const {c_type}* x, {c_type}* y) {{\n"
        f"{_channels(lanes, body, scalar)}\n}}\n"
    )
    return Microkernel(name, text)


def _average_row(isa: KernelIsa, stage: OutputStage) -> Microkernel:
    int8 = isa.int8
    kind = stage.source.value
    stored, needs = SCALAR.store_bytes(["total"], "y + c", stage, 0)
    at = _AT.removeprefix("x + ")
    rescale = SCALAR.rescale.name
    scalar = _window_loops("std::int32_t", "scale[0]", f"acc + x[{at}]")
    scalar += f"const std::int32_t total = {rescale}(acc, scale[1], scale[2]);\n"
    scalar += "\n".join(stored) + "\n"
    needs = [SCALAR.rescale, *needs]
    body, lanes, setup = "", 1, ""
    if int8:
        body, setup, more = _average_vectors(int8, stage, kind)
        needs, lanes = needs + more, isa.lanes
    name = f"averagepool{stage.suffix}_{isa.suffix}"
    parameters = ", ".join(f"int {p}" for p in [*_PARAMETERS, *stage.parameters])
    text = (
        f"// y[c] = {stage.formula('scale[0] + sum of x[row][column][c]')} over the window,\n"
        f"// {counted(lanes, 'channel')} at a time.\ntemplate <{parameters}>\n"
        f"inline void {name}(const {C_TYPES[stage.source]}* x, const std::int32_t* scale, "
        f"{C_TYPES[stage.target]}* y) {{\n{setup}{_channels(lanes, body, scalar)}\n}}\n"
    )
    return Microkernel(name, text, tuple(dict.fromkeys(needs)))


def _average_vectors(
    int8: Int8, stage: OutputStage, kind: str
) -> tuple[str, str, list[Microkernel]]:
    """Body, what stands before the loop, and helpers: rescaling is by the wide form, always."""
    spell = int8.spell
    rescale = int8.shift_left_rescale
    assert rescale is not None
    names = {
        "multiplier": "scale[1]",
        "limit": "2147483647 >> left",
        "left": "left",
        "left_power": "1 << left",
        "rounding": "1 << (right - 1)",
        "right": "right",
        "power": "1 << (32 - right)",
        "down": "31 - scale[2] - left",
    }
    least = least_shift(int8.shift_left_fields)
    setup = f"const int left = scale[2] < {least} ? {least} - scale[2] : 0;\n"
    if "rounding" in int8.shift_left_fields:
        setup += "const int right = scale[2] + left - 32;\n"
    for field in int8.shift_left_fields:
        setup += f"const auto v_{field} = {int8.set1.format(names[field])};\n"
    update = spell["add"].format("acc", spell[f"load_{kind}"].format(_AT))
    body = _window_loops(int8.vector, int8.set1.format("scale[0]"), update)
    fields = ", ".join(f"v_{field}" for field in int8.shift_left_fields)
    body += f"const auto total = {rescale.name}(acc, {fields});\n"
    stored, needs = int8.store_bytes(["total"], "y + c", stage, 0)
    return body + "\n".join(stored) + "\n", setup, [rescale, *needs, *int8.helpers]


KERNELS = (ByteMaxPool(), ByteAveragePool())
