"""Conv2D: 2-D convolution, grouped, dilated, with bias and a fused epilogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node, make
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Cost, Elementwise, LayoutRule, OnnxForm, Op, Sample, random_array
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.products import activated, activated_constant, constant_sums
from mdlc.compiler.types import Array, DType, TensorType
from mdlc.compiler.values import Values, plus, product
from mdlc.compiler.window import Window, filtered, resolve_auto_pad


@dataclass(frozen=True)
class Conv2D(Op):
    """y = activation(conv(x, w) + b + residual).

    Inputs: x [N, C, H, W], w [M, C/groups, kH, kW], b [M], then the activation's per-channel
    operand [M] if it is binary (PRelu's slope), then the residual [N, M, OH, OW] if there is one.
    x may be bytes (u8), which are then made floats of w's type.

    Attributes:
        stride, dilation: (vertical, horizontal).
        pads: zeros added (top, left, bottom, right).
        shift: numbers added to the channels of bytes, before padding; () for none.
        activation: fused element-wise operator, or None.
        residual: whether the last input is added before the activation.

    Source: ONNX specification, operator Conv.
    """

    stride: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    activation: Elementwise | None = None
    residual: bool = False
    shift: tuple[float, ...] = ()

    onnx: ClassVar[tuple[str, ...]] = ("Conv",)
    layout_rule: ClassVar[LayoutRule] = LayoutRule.NATIVE

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x, w = n.input(0), n.input(1)
        rank = len(x.shape)
        if rank not in (3, 4, 5) or len(w.shape) != rank:
            raise n.error(f"convolution of a rank-{rank} input with a rank-{len(w.shape)} filter",
                          hint="1-D, 2-D and 3-D convolutions are supported")  # fmt: skip
        kernel = w.shape[2:]
        strides = n.attr("strides", (1,) * len(kernel))
        dilations = n.attr("dilations", (1,) * len(kernel))
        pads = resolve_auto_pad(n, x.shape[2:], kernel, strides, dilations)
        b = n.optional(2) or constant(np.zeros(w.shape[0], np.float32))
        if rank == 5:
            return cls._volume(n, x, w, b, tuple(strides), pads, tuple(dilations))
        if rank == 3:  # a 1-D convolution is a 2-D one of height 1
            x = n.make(Reshape((x.shape[0], x.shape[1], 1, x.shape[2])), x)
            w = n.make(Reshape((w.shape[0], w.shape[1], 1, w.shape[2])), w)
            strides, dilations = (1, *strides), (1, *dilations)
            pads = (0, pads[0], 0, pads[1])
        top, left, bottom, right = pads
        op = cls(tuple(strides), (top, left, bottom, right), tuple(dilations), n.attr("group", 1))
        y = n.make(op, x, w, b)
        return y if rank == 4 else n.make(Reshape((y.shape[0], y.shape[1], y.shape[3])), y)

    @classmethod
    def _volume(
        cls,
        n: OnnxNode,
        x: Node,
        w: Node,
        b: Node,
        strides: tuple[int, ...],
        pads: tuple[int, ...],
        dilations: tuple[int, ...],
    ) -> Node:
        """A 3-D convolution as the sum of a 2-D one for each plane of the filter.

        Planes of the input that a plane of the filter meets are images of one batch.
        """
        from mdlc.compiler.ops.add import Add
        from mdlc.compiler.ops.pad import Pad
        from mdlc.compiler.ops.slice import Slice
        from mdlc.compiler.ops.transpose import Transpose

        if w.constant is None:
            raise n.error("the filter of a 3-D convolution must be a constant")
        if pads[0] or pads[3]:
            x = make(Pad((0, 0, pads[0], 0, 0), (0, 0, pads[3], 0, 0)), x)
        batch, channels, depth, height, width = x.shape
        free = depth - (w.shape[2] - 1) * dilations[0] - 1
        if free < 0:
            raise n.error(f"a filter of {w.type} does not fit {x.type}")
        count = free // strides[0] + 1
        op = cls(
            (strides[1], strides[2]), (pads[1], pads[2], pads[4], pads[5]),
            (dilations[1], dilations[2]), n.attr("group", 1),
        )  # fmt: skip
        total: Node | None = None
        zeros = constant(np.zeros(w.shape[0], np.float32))
        for k in range(w.shape[2]):
            met = Slice(
                (0, 0, k * dilations[0], 0, 0),
                (batch, channels, count, height, width),
                (1, 1, strides[0], 1, 1),
            )
            planes = make(Transpose((0, 2, 1, 3, 4)), make(met, x))
            images = make(Reshape((batch * count, channels, height, width)), planes)
            plane = constant(np.ascontiguousarray(w.constant[:, :, k]))
            y = make(op, images, plane, zeros if k else b)
            total = y if total is None else make(Add(), total, y)
        assert total is not None
        volume = make(Reshape((batch, count, *total.shape[1:])), total)
        return n.make(Transpose((0, 2, 1, 3, 4)), volume)

    @property
    def operands(self) -> int:
        """Number of inputs."""
        return 3 + self.has_slope + self.residual

    @property
    def has_slope(self) -> bool:
        """Whether the activation has a per-channel operand, input 3."""
        return self.activation is not None and self.activation.arity == 2

    def window(self, kernel: Sequence[int]) -> Window:
        """The sliding window for a filter of [kH, kW]."""
        return Window((kernel[0], kernel[1]), self.stride, self.pads, self.dilation)

    def infer(self, *inputs: TensorType) -> TensorType:
        if len(inputs) != self.operands:
            raise MdlcError(f"Conv2D takes {self.operands} inputs, not {len(inputs)}")
        x, w, b = inputs[:3]
        if x.rank != 4 or w.rank != 4:
            raise MdlcError(f"Conv2D needs rank-4 input and filter, not {x} and {w}")
        batch, channels, height, width = x.shape
        filters, per_group, *kernel = w.shape
        if channels != per_group * self.groups or filters % self.groups:
            raise MdlcError(
                f"{channels} input channels do not fit a filter of shape {list(w.shape)} "
                f"in {self.groups} groups"
            )
        if b.shape != (filters,):
            raise MdlcError(f"bias has shape {list(b.shape)}, not [{filters}]")
        if self.shift and (x.dtype is not DType.U8 or len(self.shift) != channels):
            raise MdlcError(f"{len(self.shift)} summands do not fit the input {x}, or it is not u8")
        out = self.window(kernel).output_size((height, width))
        dtype = w.dtype if x.dtype is DType.U8 else x.dtype
        result = TensorType((batch, filters, *out), dtype)
        if self.residual and inputs[-1].shape != result.shape:
            raise MdlcError(f"residual {inputs[-1]} does not fit the output {result}")
        return result

    def channel_map(
        self, inputs: Sequence[TensorType], output: TensorType
    ) -> tuple[Array | None, ...] | None:
        channels, filters = inputs[0].shape[1], output.shape[1]
        if self.groups != channels or channels == 1:  # one channel is mixed into all filters
            return None
        own: list[Array | None] = [np.arange(filters) // (filters // channels)]
        own += [None] * (len(inputs) - 1)
        if self.residual:
            own[-1] = np.arange(filters)
        return tuple(own)

    def reference(self, *inputs: Array) -> Array:
        x, w, b = inputs[:3]
        if x.dtype == np.uint8:
            x = x.astype(np.float32)
            if self.shift:
                x = x + np.array(self.shift, np.float32)[:, None, None]
            x = x.astype(w.dtype)
        patches = self.window(w.shape[2:]).patches(x, 0.0)
        y = filtered(patches, w, self.groups) + b[None, :, None, None]
        if self.residual:
            y = y + inputs[-1]
        if self.activation is not None:
            extra = (inputs[3][None, :, None, None],) if self.has_slope else ()
            y = self.activation.reference(y.astype(x.dtype), *extra)
        return np.asarray(y, x.dtype)

    def term_magnitudes(self, *inputs: Array) -> Array:
        operands = [*inputs[:3], *inputs[3 + self.has_slope :]]
        shift = tuple(map(abs, self.shift))
        return replace(self, activation=None, shift=shift).reference(*map(np.abs, operands))

    def value_bounds(self, node: Node, inputs: Sequence[Values]) -> Values:
        weights = node.inputs[1].constant
        if weights is None:
            return super().value_bounds(node, inputs)
        x = inputs[0].of(node.inputs[0].shape[1])
        if self.shift:
            shift = np.array(self.shift, np.float64)
            x = plus(x, Values(np.abs(shift), shift, np.zeros(shift.size)))
        taps = weights.reshape(*weights.shape[:2], -1)
        found = product(taps, self.groups, inputs[2].of(len(taps)), x)
        if self.residual:
            found = plus(found, inputs[-1].of(len(taps)))
        return activated(self.activation, found, inputs[3:])

    def constant_channels(self, node: Node, known: Sequence[Array]) -> Array:
        unknown = np.full(node.shape[1], np.nan)
        weights, bias = (source.constant for source in node.inputs[1:3])
        if weights is None or bias is None or self.shift:
            return unknown
        x = known[0]
        taps = weights.reshape(*weights.shape[:2], -1)
        if self.groups > 1:
            if self.groups != len(x):
                return unknown
            x = x[np.arange(len(bias)) // (len(bias) // self.groups)][:, None]
        # Behind padding, only a channel of zeros is the same everywhere.
        usable = x == 0 if any(self.pads) else ~np.isnan(x)
        found = constant_sums(taps, bias, np.where(usable, x, np.nan))
        if self.residual:
            found = found + known[-1].astype(np.float32)
        return activated_constant(self.activation, found, node.inputs[3:])

    def cost(self, inputs: Sequence[TensorType], output: TensorType) -> Cost:
        _, per_group, kh, kw = inputs[1].shape
        return Cost(
            output.size * per_group * kh * kw, sum(t.nbytes for t in inputs) + output.nbytes
        )

    def to_onnx(self) -> OnnxForm | None:
        if self.activation is not None or self.residual or self.shift:
            return None
        attributes = {
            "strides": self.stride,
            "pads": self.pads,
            "dilations": self.dilation,
            "group": self.groups,
        }
        return "Conv", attributes, ()

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        from mdlc.compiler.ops.clip import Clip
        from mdlc.compiler.ops.prelu import PRelu
        from mdlc.compiler.ops.relu import Relu

        def sample(label: str, op: Conv2D, x: tuple[int, ...], w: tuple[int, ...]) -> Sample:
            values = [random_array(1, *x), random_array(2, *w), random_array(3, w[0])]
            constants = [1, 2]
            if op.has_slope:
                values.append(random_array(4, w[0]))
                constants.append(3)
            if op.residual:
                size = op.window(w[2:]).output_size(x[2:])
                values.append(random_array(5, x[0], w[0], *size))
            # Winograd's transforms cancel large terms: its error is absolute, not relative.
            atol = 1e-4 if w[2] == w[3] > 1 else 1e-5
            if op.shift:
                values[0] = np.random.default_rng(1).integers(0, 256, x).astype(np.uint8)
                values[1] /= 128
            return Sample(op, tuple(values), tuple(constants), label, atol=atol)

        return (
            sample("1x1", cls(), (1, 16, 7, 7), (32, 16, 1, 1)),
            sample("1x1_awkward", cls(), (1, 13, 5, 9), (37, 13, 1, 1)),
            sample("1x1_stride2", cls(stride=(2, 2)), (1, 24, 9, 7), (20, 24, 1, 1)),
            sample("1x1_batch", cls(), (3, 8, 5, 5), (12, 8, 1, 1)),
            sample("1x1_pixel", cls(), (1, 40, 1, 1), (70, 40, 1, 1)),
            sample("1x1_wide", cls(activation=Relu()), (1, 64, 14, 14), (96, 64, 1, 1)),
            sample("1x1_large_odd", cls(activation=Relu()), (1, 64, 7, 9), (128, 64, 1, 1)),
            sample("1x1_large_residual", cls(activation=Clip(0.0, 6.0), residual=True),
                   (1, 80, 8, 7), (64, 80, 1, 1)),
            sample("3x3", cls(pads=(1, 1, 1, 1)), (1, 8, 10, 12), (16, 8, 3, 3)),
            sample("3x3_residual", cls(pads=(1, 1, 1, 1), activation=Relu(), residual=True),
                   (1, 12, 9, 11), (20, 12, 3, 3)),
            sample("3x3_deep", cls(pads=(1, 1, 1, 1)), (1, 16, 12, 12), (32, 16, 3, 3)),
            sample("3x3_deep_residual", cls(pads=(1, 1, 1, 1), activation=Relu(), residual=True),
                   (2, 16, 9, 13), (16, 16, 3, 3)),
            sample("3x3_deep_prelu", cls(activation=PRelu()), (1, 32, 7, 6), (48, 32, 3, 3)),
            sample("3x3_deep_stride2", cls((2, 2), (1, 1, 1, 1), activation=Relu(), residual=True),
                   (2, 16, 13, 18), (32, 16, 3, 3)),
            sample("5x5_deep", cls(pads=(2, 2, 2, 2)), (1, 16, 9, 10), (16, 16, 5, 5)),
            sample("5x5_deep_stride2", cls((2, 2), (2, 2, 2, 2)), (1, 16, 12, 9), (16, 16, 5, 5)),
            sample("3x3_first", cls((2, 2), (0, 0, 1, 1), activation=Clip(0.0, 6.0)),
                   (1, 3, 32, 32), (24, 3, 3, 3)),
            sample("3x3_prelu", cls(pads=(1, 1, 1, 1), activation=PRelu()),
                   (1, 5, 6, 6), (7, 5, 3, 3)),
            sample("5x3_uneven", cls((2, 1), (2, 0, 1, 1)), (1, 6, 11, 9), (10, 6, 5, 3)),
            sample("7x7_stride2", cls((2, 2), (3, 3, 3, 3)), (1, 3, 20, 22), (16, 3, 7, 7)),
            sample("dilated", cls(pads=(2, 2, 2, 2), dilation=(2, 2)), (1, 8, 9, 9), (9, 8, 3, 3)),
            sample("grouped", cls(pads=(1, 1, 1, 1), groups=3), (1, 12, 8, 8), (18, 4, 3, 3)),
            sample("grouped_1x1", cls(groups=4), (1, 32, 6, 5), (64, 8, 1, 1)),
            sample("row", cls(pads=(0, 2, 0, 2)), (2, 10, 1, 17), (6, 10, 1, 5)),
            sample("depthwise", cls(pads=(1, 1, 1, 1), groups=24), (1, 24, 8, 9), (24, 1, 3, 3)),
            sample("depthwise_stride2", cls((2, 2), (0, 0, 1, 1), groups=19,
                   activation=Clip(0.0, 6.0)), (1, 19, 12, 14), (19, 1, 3, 3)),
            sample("depthwise_5x5", cls((1, 1), (2, 2, 2, 2), groups=32), (2, 32, 7, 7),
                   (32, 1, 5, 5)),
            sample("depthwise_dilated", cls((1, 1), (4, 4, 4, 4), (4, 4), groups=16),
                   (1, 16, 12, 12), (16, 1, 3, 3)),
            sample("depthwise_multiplier", cls(pads=(1, 1, 1, 1), groups=6), (1, 6, 7, 8),
                   (12, 1, 3, 3)),
            sample("depthwise_residual", cls(pads=(1, 1, 1, 1), groups=8, residual=True,
                   activation=Relu()), (1, 8, 5, 5), (8, 1, 3, 3)),
            sample("bytes", cls((2, 2), (0, 0, 1, 1), shift=(-123.7, -116.8, -103.9),
                   activation=Clip(0.0, 6.0)), (1, 3, 16, 50), (13, 3, 3, 3)),
            sample("bytes_gray", cls(shift=(-128.0,)), (2, 1, 9, 9), (8, 1, 3, 3)),
            sample("bytes_7x7", cls((2, 2), (3, 3, 3, 3), shift=(-1.5, -2.5, -3.5)),
                   (1, 3, 20, 22), (16, 3, 7, 7)),
            sample("bytes_deep", cls(pads=(1, 1, 1, 1), shift=(-127.5,) * 16, residual=True),
                   (2, 16, 9, 13), (16, 16, 3, 3)),
        )  # fmt: skip
