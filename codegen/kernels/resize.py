"""Resize in NHWC: every output pixel a weighted sum of input pixels, vectors of channels."""

from __future__ import annotations

import numpy as np

from mdlc.codegen.code import Call, Function, Microkernel, Value, offset
from mdlc.codegen.gemm.strides import nest
from mdlc.codegen.isa.base import KernelIsa
from mdlc.codegen.isa.dialect import Dialect
from mdlc.codegen.isa.scalar import SCALAR
from mdlc.codegen.kernel import Kernel, Schedule, Step
from mdlc.compiler.ir import Node
from mdlc.compiler.ops.resize import Resize
from mdlc.compiler.types import Array


def resize_microkernel(isa: KernelIsa, rows: int, columns: int, tail: bool) -> Microkernel:
    """One pixel from rows x columns input pixels, all channels."""
    name = f"resize{rows}x{columns}{'_tail' if tail else ''}_{isa.kind}_{isa.suffix}"
    taps = [(r, c) for r in range(rows) for c in range(columns)]
    weighted = rows * columns > 1
    lines = []
    if weighted:
        for r, c in taps:
            lines.append(f"const float w{r}{c} = wy[{r}] * wx[{c}];")
    for r, c in taps:
        lines.append(f"const {isa.element}* x{r}{c} = x + oy[{r}] + ox[{c}];")

    def body(target: Dialect) -> str:
        value = target.load("x00 + c")
        if weighted:
            value = target.op("mul", value, target.set1("w00"))
            for r, c in taps[1:]:
                value = target.fma(target.load(f"x{r}{c} + c"), target.set1(f"w{r}{c}"), value)
        return f"{target.store('y + c', value)};"

    if tail:
        lines += [
            "int c = 0;",
            f"for (; c < kChannels - {isa.lanes - 1}; c += {isa.lanes}) {{",
            body(isa),
            "}",
            "for (; c < kChannels; ++c) {",
            body(isa.scalar or SCALAR),
            "}",
        ]
    else:
        step = f"c += {isa.lanes}" if isa.lanes > 1 else "++c"
        lines += [f"for (int c = 0; c < kChannels; {step}) {{", body(isa), "}"]
    weights = "const float* wy, const float* wx, " if weighted else ""
    text = (
        "// y[c] = sum of wy[row] * wx[column] * x[oy[row] + ox[column] + c]; x: NHWC.\n"
        "template <int kChannels>\n"
        f"inline void {name}(const {isa.element}* x, "
        "const std::int32_t* oy, const std::int32_t* ox, "
        f"{weights}{isa.element}* y) {{\n" + "\n".join(lines) + "\n}\n"
    )
    return Microkernel(name, text)


class ResizeKernel(Kernel):
    """Nearest, linear and cubic along height and width; taps are tables in the weights."""

    name = "resize"
    layer = "Interpolation"
    pitched_input = True
    pitched_output = True

    def matches(self, node: Node, isa: KernelIsa) -> bool:
        op = node.op
        if not isinstance(op, Resize) or node.type.dtype is not isa.dtype or len(node.shape) != 4:
            return False
        if op.extrapolation and op.coordinates == "tf_crop_and_resize":
            return False
        return all(op.untouched(axis, node.inputs[0].shape[axis]) for axis in (0, 1))

    def cost(self, node: Node, schedule: Schedule, isa: KernelIsa) -> float:
        taps = self._taps(node)
        per_pixel = int(taps[0][0].shape[1]) * int(taps[1][0].shape[1])
        return node.type.size / isa.lanes * per_pixel

    @staticmethod
    def _taps(node: Node) -> list[tuple[Array, Array]]:
        """Indices and weights along height and width, without taps that never count."""
        op = node.op
        assert isinstance(op, Resize)
        found = []
        for axis in (2, 3):
            indices, weights = op.taps(axis, node.inputs[0].shape[axis])
            if op.untouched(axis, node.inputs[0].shape[axis]):
                indices, weights = np.arange(len(indices))[:, None], np.ones((len(indices), 1))
            found.append((indices, weights))
        if any(weights.shape[1] > 1 or np.any(weights != 1) for _, weights in found):
            # A single tap of weight 1 beside others: give it a second that does not count.
            found = [
                (np.repeat(i, 2, 1), np.pad(w, ((0, 0), (0, 1)))) if w.shape[1] == 1 else (i, w)
                for i, w in found
            ]
        return found

    def pack(self, node: Node, schedule: Schedule, isa: KernelIsa) -> dict[str, Array]:
        (rows, wy), (columns, wx) = self._taps(node)
        packed: dict[str, Array] = {
            "rows": rows.astype(np.int32).reshape(-1),
            "columns": columns.astype(np.int32).reshape(-1),
        }
        if wy.shape[1] > 1:
            packed["row_weights"] = wy.astype(np.float32).reshape(-1)
            packed["column_weights"] = wx.astype(np.float32).reshape(-1)
        return packed

    def emit(self, step: Step, isa: KernelIsa) -> Function:
        node, x, y = step.node, step.inputs[0], step.output
        images, channels, height, width = node.inputs[0].shape
        oh, ow = node.shape[2:]
        (_, wy), (_, wx) = self._taps(node)
        ty, tx = wy.shape[1], wx.shape[1]
        weighted = ty > 1
        pixel = resize_microkernel(isa, ty, tx, isa.lanes > 1 and channels % isa.lanes != 0)
        source = offset("x", (images, "i0", height * width * x.pitch))
        to = offset(
            "y",
            (images, "i0", oh * ow * y.pitch),
            (oh, "i1", ow * y.pitch),
            (ow, "i2", y.pitch),
        )
        arguments: list[Value] = [source, "oy", "ox"]
        if weighted:
            arguments.append(offset("row_weights", (oh, "i1", ty)))
            arguments.append(offset("column_weights", (ow, "i2", tx)))

        def places(name: str, table: str, variable: str, count: int, taps: int, step: int) -> str:
            """The elements before each tap, from the table's row or column."""
            lines = [f"std::int32_t {name}[{taps}];"]
            for tap in range(taps):
                at = offset(table, (count, variable, taps), fixed=tap)
                lines.append(f"{name}[{tap}] = *({at}){f' * {step}' if step > 1 else ''};")
            return "\n".join(lines)

        return step.function(
            f"resize_{height}x{width}x{channels}_to_{oh}x{ow}_{ty}x{tx}",
            nest(
                [images, oh],
                places("oy", "rows", "i1", oh, ty, width * x.pitch),
                nest(
                    [ow],
                    places("ox", "columns", "i2", ow, tx, x.pitch),
                    Call(pixel, (*arguments, to), (channels,)),
                    first=2,
                ),
            ),
            comment=[f"{type(node.op).__name__} {ty}x{tx} taps"],
        )


KERNELS = (ResizeKernel(),)
