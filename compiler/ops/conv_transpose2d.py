"""ConvTranspose2D: the gradient of a convolution, used for upsampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Cost, Elementwise, LayoutRule, OnnxForm, Op, Sample, random_array
from mdlc.compiler.ops.add import Add
from mdlc.compiler.ops.col2im import Col2Im
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.matmul import MatMul
from mdlc.compiler.ops.pad import Pad
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.slice import Slice
from mdlc.compiler.ops.transpose import Transpose
from mdlc.compiler.products import activated
from mdlc.compiler.types import Array, TensorType
from mdlc.compiler.values import Values, product


@dataclass(frozen=True)
class ConvTranspose2D(Op):
    """Every input pixel adds its filter, scaled, to the output at stride * position - pads.

    Inputs: x [N, C, H, W], w [C, M/groups, kH, kW], b [M], then the activation's per-channel
    operand [M] if it is binary.

    Attributes:
        pads: cut off (top, left, bottom, right); output_padding: added (bottom, right).

    Source: ONNX specification, operator ConvTranspose.
    """

    stride: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    output_padding: tuple[int, int] = (0, 0)
    activation: Elementwise | None = None

    onnx: ClassVar[tuple[str, ...]] = ("ConvTranspose",)
    layout_rule: ClassVar[LayoutRule] = LayoutRule.NATIVE

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x, w = n.input(0), n.input(1)
        rank = len(x.shape) - 2
        if rank not in (1, 2, 3) or len(w.shape) != rank + 2:
            raise n.error(f"transposed convolution of {x.type} with {w.type}",
                          hint="1-D, 2-D and 3-D convolutions are supported")  # fmt: skip
        ones = (1,) * rank
        strides, dilations = n.attr("strides", ones), n.attr("dilations", ones)
        extra = list(n.attr("output_padding", (0,) * rank))
        pads = cls._pads(n, x.shape[2:], w.shape[2:], strides, dilations, extra)
        groups = n.attr("group", 1)
        b = n.optional(2) or constant(np.zeros(w.shape[1] * groups, x.type.dtype.numpy))
        if rank == 3 or w.constant is None or b.constant is None:
            return cls._by_columns(n, x, w, b, groups, strides, pads, dilations, extra)
        if rank == 1:
            x = n.make(Reshape((*x.shape[:2], 1, x.shape[2])), x)
            w = n.make(Reshape((*w.shape[:2], 1, w.shape[2])), w)
            strides, dilations, extra = (1, *strides), (1, *dilations), [0, *extra]
            pads = (0, pads[0], 0, pads[1])
        top, left, bottom, right = pads
        op = cls(
            tuple(strides),
            (top, left, bottom, right),
            tuple(dilations),
            groups,
            (extra[0], extra[1]),
        )
        y = n.make(op, x, w, b)
        return y if rank == 2 else n.make(Reshape((*y.shape[:2], y.shape[3])), y)

    @staticmethod
    def _by_columns(
        n: OnnxNode,
        x: Node,
        w: Node,
        b: Node,
        groups: int,
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
        extra: Sequence[int],
    ) -> Node:
        """A product with the filters, whose columns are added up into the output."""
        size, kernel, rank = x.shape[2:], w.shape[2:], len(w.shape) - 2
        images, channels = x.shape[:2]
        if channels % groups or w.shape[0] != channels or b.shape != (w.shape[1] * groups,):
            raise n.error(f"{x.type} does not fit a transposed filter {w.type} in {groups} groups")
        each, rows = channels // groups, w.shape[1] * math.prod(kernel)
        filters = n.make(Reshape((1, groups, each, rows)), w)
        pixels = n.make(Reshape((images, groups, each, math.prod(size))), x)
        columns = n.make(MatMul(), n.make(Transpose((0, 1, 3, 2)), filters), pixels)
        columns = n.make(Reshape((images, groups * rows, math.prod(size))), columns)
        full = [
            s * (d - 1) + (k - 1) * dilation + 1
            for s, d, k, dilation in zip(strides, size, kernel, dilations, strict=True)
        ]
        # Columns fill the whole output before anything is cut off or added.
        op = Col2Im(tuple(full), kernel, tuple(strides), (0,) * (2 * rank), tuple(dilations))
        y = n.make(op, columns)
        ends = [more - cut for more, cut in zip(extra, pads[rank:], strict=True)]
        grown = tuple(max(end, 0) for end in ends)
        if any(grown):
            y = n.make(Pad((0,) * (rank + 2), (0, 0, *grown)), y)
        lengths = tuple(f + e - p for f, e, p in zip(full, ends, pads, strict=False))
        if min(lengths) < 1:
            raise n.error(f"pads {list(pads)} leave nothing of the output")
        cut = Slice((0, 0, *pads[:rank]), (*y.shape[:2], *lengths), (1,) * (rank + 2))
        y = n.make(cut, y)
        return n.make(Add(), y, n.make(Reshape((b.shape[0], *(1,) * rank)), b))

    @staticmethod
    def _pads(
        n: OnnxNode,
        size: Sequence[int],
        kernel: Sequence[int],
        strides: Sequence[int],
        dilations: Sequence[int],
        extra: list[int],
    ) -> tuple[int, ...]:
        rank = len(kernel)
        mode, wanted = n.attr("auto_pad", "NOTSET"), n.attr("output_shape")
        if wanted is None and mode in ("NOTSET", ""):
            return tuple(n.attr("pads", (0,) * 2 * rank))
        if wanted is None and mode == "VALID":
            return (0,) * 2 * rank
        begins, ends = [], []
        for i in range(rank):
            target = wanted[-rank:][i] if wanted else size[i] * strides[i]
            full = strides[i] * (size[i] - 1) + extra[i] + (kernel[i] - 1) * dilations[i] + 1
            total = full - target
            if total < 0:  # the last rows or columns are the bias alone
                extra[i] -= total
                total = 0
            small, large = total // 2, total - total // 2
            upper = mode == "SAME_UPPER"
            begins.append(small if upper else large)
            ends.append(large if upper else small)
        return (*begins, *ends)

    @property
    def has_slope(self) -> bool:
        """Whether the activation has a per-channel operand, input 3."""
        return self.activation is not None and self.activation.arity == 2

    def infer(self, *inputs: TensorType) -> TensorType:
        if len(inputs) != 3 + self.has_slope:
            raise MdlcError(f"ConvTranspose2D takes {3 + self.has_slope} inputs")
        x, w, b = inputs[:3]
        if x.rank != 4 or w.rank != 4 or x.shape[1] != w.shape[0] or x.shape[1] % self.groups:
            raise MdlcError(f"{x} does not fit a transposed filter {w} in {self.groups} groups")
        filters = w.shape[1] * self.groups
        if b.shape != (filters,):
            raise MdlcError(f"bias has shape {list(b.shape)}, not [{filters}]")
        size = []
        for i in range(2):
            full = self.stride[i] * (x.shape[2 + i] - 1) + self.output_padding[i]
            full += (w.shape[2 + i] - 1) * self.dilation[i] + 1
            size.append(full - self.pads[i] - self.pads[i + 2])
        if min(size) < 1:
            raise MdlcError(f"pads {list(self.pads)} leave nothing of the output")
        return TensorType((x.shape[0], filters, *size), x.dtype)

    def reference(self, *inputs: Array) -> Array:
        x, w, b = inputs[:3]
        images, channels, height, width = x.shape
        per_group, kh, kw = w.shape[1:]
        (sh, sw), (dh, dw) = self.stride, self.dilation
        oh, ow = self.infer(*(TensorType(i.shape) for i in inputs)).shape[2:]
        full = np.zeros(
            (
                images,
                per_group * self.groups,
                max(sh * (height - 1) + (kh - 1) * dh + 1, self.pads[0] + oh),
                max(sw * (width - 1) + (kw - 1) * dw + 1, self.pads[1] + ow),
            )
        )
        grouped = x.reshape(images, self.groups, channels // self.groups, height, width)
        weights = w.reshape(self.groups, channels // self.groups, per_group, kh, kw)
        for i in range(kh):
            for j in range(kw):
                part = np.einsum("ngchw,gcm->ngmhw", grouped, weights[..., i, j], optimize=True)
                rows = slice(i * dh, i * dh + sh * (height - 1) + 1, sh)
                columns = slice(j * dw, j * dw + sw * (width - 1) + 1, sw)
                full[:, :, rows, columns] += part.reshape(images, -1, height, width)
        top, left = self.pads[:2]
        y = full[:, :, top : top + oh, left : left + ow] + b[None, :, None, None]
        y = y.astype(x.dtype)
        if self.activation is not None:
            extra = (inputs[3][None, :, None, None],) if self.has_slope else ()
            y = self.activation.reference(y, *extra)
        return y

    def term_magnitudes(self, *inputs: Array) -> Array:
        operands = [*inputs[:3], *inputs[3 + self.has_slope :]]
        return replace(self, activation=None).reference(*map(np.abs, operands))

    def value_bounds(self, node: Node, inputs: Sequence[Values]) -> Values:
        weights = node.inputs[1].constant
        if weights is None:
            return super().value_bounds(node, inputs)
        # [C, M / groups, taps] to [M, C / groups, taps]
        grouped = weights.reshape(self.groups, -1, weights.shape[1], weights[0, 0].size)
        taps = grouped.swapaxes(1, 2).reshape(node.shape[1], -1, grouped.shape[-1])
        x = inputs[0].of(node.inputs[0].shape[1])
        found = product(taps, self.groups, inputs[2].of(len(taps)), x)
        return activated(self.activation, found, inputs[3:])

    def cost(self, inputs: Sequence[TensorType], output: TensorType) -> Cost:
        per_pixel = inputs[1].size // inputs[1].shape[0]
        return Cost(inputs[0].size * per_pixel, sum(t.nbytes for t in inputs) + output.nbytes)

    def to_onnx(self) -> OnnxForm | None:
        if self.activation is not None:
            return None
        attributes = {
            "strides": self.stride,
            "pads": self.pads,
            "dilations": self.dilation,
            "group": self.groups,
            "output_padding": self.output_padding,
        }
        return "ConvTranspose", attributes, ()

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        from mdlc.compiler.ops.relu import Relu

        def sample(label: str, op: Op, x: tuple[int, ...], w: tuple[int, ...], m: int) -> Sample:
            values = random_array(1, *x), random_array(2, *w), random_array(3, m)
            return Sample(op, values, (1, 2), label)

        return (
            sample("2x2", cls((2, 2)), (1, 8, 5, 6), (8, 20, 2, 2), 20),
            sample("4x4", cls((2, 2), (1, 1, 1, 1), activation=Relu()), (1, 6, 5, 5),
                   (6, 5, 4, 4), 5),
            sample("3x3", cls((2, 2), (1, 1, 1, 1), output_padding=(1, 1)), (2, 4, 4, 5),
                   (4, 9, 3, 3), 9),
            sample("stride1", cls(pads=(1, 1, 1, 1)), (1, 4, 6, 6), (4, 7, 3, 3), 7),
            sample("grouped", cls((2, 2), groups=2), (1, 6, 3, 4), (6, 2, 3, 3), 4),
            sample("dilated", cls((2, 1), (0, 1, 1, 0), (2, 3)), (1, 3, 5, 5), (3, 4, 3, 2), 4),
            sample("gaps", cls((3, 3)), (1, 3, 4, 4), (3, 5, 2, 2), 5),
        )  # fmt: skip
