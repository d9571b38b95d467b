"""Convolutions, also transposed, of any floating type and with weights that come at run time.

Element by element, as the definition says. Where the weights are constants in float32 the vector
kernels (conv_direct and its relatives) compute the layer.
"""

from __future__ import annotations

from dataclasses import dataclass

from mdlc.codegen.code import C_TYPES, Function, Microkernel, Statement
from mdlc.codegen.gemm.strides import Dim, logical_strides, nest, pointer
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.kernel import Kernel, Schedule, Step
from mdlc.codegen.tiles.epilogue import Epilogue
from mdlc.codegen.tiles.operands import constants_of, runtime_of
from mdlc.codegen.tiles.plain import input_view
from mdlc.codegen.tiles.scalar_epilogue import epilogue_value
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.conv_transpose2d import ConvTranspose2D
from mdlc.compiler.types import Array, DType


def _names(node: Node) -> list[str]:
    op = node.op
    assert isinstance(op, Conv2D | ConvTranspose2D)
    residual = isinstance(op, Conv2D) and op.residual
    return ["x", "weights", "bias"] + ["slope"] * op.has_slope + ["residual"] * residual


@dataclass(frozen=True)
class _Axis:
    """How an output position and a tap of the filter meet the input along one axis.

    Attributes:
        position: the loop variable of the output position, "0" where there is one only.
        before: what padding puts before the input.
    """

    position: str
    size: int
    stride: int
    dilation: int
    before: int

    def place(self, tap: str) -> str:
        """The input's position under a tap of a convolution."""
        return _sum([(self.position, self.stride), (tap, self.dilation)], -self.before)

    def reached(self, tap: str) -> str:
        """`stride` times the input's position that a tap of a transposed one takes here."""
        return _sum([(self.position, 1), (tap, -self.dilation)], self.before)


class ConvAny(Kernel):
    """What vector kernels do not do: parameters at run time, and float64."""

    name = "conv_any"
    layer = "Convolution"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        op = node.op
        if not isinstance(op, Conv2D | ConvTranspose2D):
            return False
        if {s.type.dtype for s in (node, *node.inputs)} not in ({DType.F32}, {DType.F64}):
            return False
        parameters = node.inputs[1 : 3 + op.has_slope]
        runtime = any(source.constant is None for source in parameters)
        return runtime or node.type.dtype is DType.F64

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        return 3.0 * node.op.cost([s.type for s in node.inputs], node.type).macs

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        return constants_of(node, _names(node))

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, op = step.node, step.node.op
        assert isinstance(op, Conv2D | ConvTranspose2D)
        names = _names(node)
        views = {name: input_view(step, index) for index, name in enumerate(names)}
        images, filters, rows, columns = node.shape
        own = logical_strides(step.output)
        residual = logical_strides(views["residual"]) if "residual" in views else (0,) * 4
        # Image, row, column, channel: the order of the output's memory.
        x = logical_strides(views["x"])
        dims = [
            Dim(images, (own[0], residual[0], x[0])),
            Dim(rows, (own[2], residual[2], 0)),
            Dim(columns, (own[3], residual[3], 0)),
            Dim(filters, (own[1], residual[1], 0)),
        ]
        channel = "i3" if filters > 1 else "0"
        kind = C_TYPES[node.type.dtype]
        needs: list[Microkernel] = []
        value, includes = epilogue_value(
            Epilogue(op.activation, "residual" in views),
            "total",
            slope=f"slope[{channel}]",
            residual=f"*({pointer('residual', dims, 1)})",
            dtype=node.type.dtype,
            needs=needs,
        )
        image = str(pointer("x", dims, 2))
        lines: list[Statement] = [
            f"{kind} total = bias[{channel}];",
            *self._taps(node, kind, image, x, logical_strides(views["weights"])),
            f"*({pointer('y', dims, 0)}) = {value};",
        ]
        transposed = "_transposed" if isinstance(op, ConvTranspose2D) else ""
        shapes = "_by_".join("x".join(map(str, s.shape)) for s in node.inputs[:2])
        return step.function(
            f"conv_any{transposed}_{shapes}_{node.type.dtype.value}",
            nest([dim.count for dim in dims], lines, shared=True),
            comment=[op.words],
            inputs=runtime_of(node, names),
            needs=needs,
            includes=includes,
        )

    @staticmethod
    def _taps(
        node: Node, kind: str, image: str, x: tuple[int, ...], w: tuple[int, ...]
    ) -> list[str]:
        """Loops over the taps that meet the input, and over the channels of a group."""
        op = node.op
        assert isinstance(op, Conv2D | ConvTranspose2D)
        _, channels, *size = node.inputs[0].shape
        kernel = node.inputs[1].shape[2:]
        filters = node.shape[1]
        per_group, outputs = channels // op.groups, filters // op.groups
        lines, closes, place = [], 0, []
        for i, name in enumerate("yx"):
            position = f"i{i + 1}" if node.shape[2 + i] > 1 else "0"
            axis = _Axis(position, size[i], op.stride[i], op.dilation[i], op.pads[i])
            tap, at = f"k{name}", f"i{name}"
            lines.append(f"for (int {tap} = 0; {tap} < {kernel[i]}; ++{tap}) {{")
            closes += 1
            if isinstance(op, Conv2D):
                lines.append(f"const int {at} = {axis.place(tap)};")
                lines.append(f"if ({at} < 0 || {at} >= {axis.size}) continue;")
            else:
                reached = f"reached_{name}"
                lines.append(f"const int {reached} = {axis.reached(tap)};")
                if axis.stride > 1:
                    lines.append(f"if ({reached} < 0 || {reached} % {axis.stride} != 0) continue;")
                    lines.append(f"const int {at} = {reached} / {axis.stride};")
                    lines.append(f"if ({at} >= {axis.size}) continue;")
                else:
                    lines.append(f"const int {at} = {reached};")
                    lines.append(f"if ({at} < 0 || {at} >= {axis.size}) continue;")
            place.append(at)
        channel = "i3" if filters > 1 else "0"
        group = f"{channel} / {outputs}" if outputs > 1 else channel
        group = group if op.groups > 1 else "0"
        pixel = _sum([(place[0], x[2]), (place[1], x[3]), (group, per_group * x[1])], 0)
        if isinstance(op, Conv2D):
            filter_ = [(channel, w[0]), ("ky", w[2]), ("kx", w[3])]
            step = w[1]
        else:
            inside = channel
            if op.groups > 1:
                inside = f"{channel} % {outputs}" if outputs > 1 else "0"
            filter_ = [(group, per_group * w[0]), (inside, w[1]), ("ky", w[2]), ("kx", w[3])]
            step = w[0]
        lines += [
            f"const {kind}* pixel = {image} + {pixel};",
            f"const {kind}* filter = weights + {_sum(filter_, 0)};",
            f"for (int c = 0; c < {per_group}; ++c) {{",
            f"total += pixel[{_sum([('c', x[1])], 0)}] * filter[{_sum([('c', step)], 0)}];",
            "}" * (closes + 1),
        ]
        return lines


def _sum(terms: list[tuple[str, int]], fixed: int) -> str:
    """A sum of variables times numbers, without what is zero."""
    text = ""
    for name, factor in terms:
        if name == "0" or factor == 0:
            continue
        size = abs(factor)
        product = name if size == 1 else f"{name} * {size}"
        text += (f" {'-' if factor < 0 else '+'} " if text else "-" * (factor < 0)) + product
    if fixed or not text:
        sign = "-" if fixed < 0 else "+"
        text = f"{text} {sign} {abs(fixed)}" if text else str(fixed)
    return text


KERNELS = (ConvAny(),)
