"""DeformPatches: the inputs of a deformable convolution, each read at a place of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Cost, Op, Sample, random_array
from mdlc.compiler.ops.add import Add
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.matmul import MatMul
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.types import Array, TensorType
from mdlc.compiler.window import Window, resolve_auto_pad


@dataclass(frozen=True)
class DeformPatches(Op):
    """Row c * kH * kW + k: mask * x[n, c] at tap k of every window, moved by an offset.

    Inputs: x [N, C, H, W], offsets [N, G * kH * kW * 2, OH, OW] (down and across for each tap of a
    group of channels g), and a mask [N, G * kH * kW, OH, OW]. Values between pixels are bilinear,
    those outside 0. DeformConv is imported as this and a pointwise convolution.

    Source: ONNX specification, operator DeformConv.
    """

    window: Window
    groups: int = 1

    onnx: ClassVar[tuple[str, ...]] = ("DeformConv",)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x, w, offset = n.input(0), n.input(1), n.input(2)
        if len(x.shape) != 4 or len(w.shape) != 4:
            raise n.error(f"deformable convolution of {x.type} with {w.type}",
                          hint="2-D ones are supported")  # fmt: skip
        kernel = w.shape[2:]
        strides, dilations = n.attr("strides", (1, 1)), n.attr("dilations", (1, 1))
        top, left, bottom, right = resolve_auto_pad(n, x.shape[2:], kernel, strides, dilations)
        window = Window(
            (kernel[0], kernel[1]),
            (strides[0], strides[1]),
            (top, left, bottom, right),
            (dilations[0], dilations[1]),
        )
        taps, group = kernel[0] * kernel[1], n.attr("group", 1)
        groups = n.attr("offset_group", 1)
        ones = np.ones((x.shape[0], groups * taps, *offset.shape[2:]), x.type.dtype.numpy)
        mask = n.optional(4) or constant(ones)
        patches = n.make(cls(window, groups), x, offset, mask)
        filters, depth = w.shape[0], w.shape[1] * taps
        bias = n.optional(3) or constant(np.zeros(filters, x.type.dtype.numpy))
        if w.constant is not None and bias.constant is not None:
            flat = n.make(Reshape((filters, depth, 1, 1)), w)
            return n.make(Conv2D((1, 1), (0, 0, 0, 0), (1, 1), group), patches, flat, bias)
        size = patches.shape[2] * patches.shape[3]
        left_side = n.make(Reshape((1, group, filters // group, depth)), w)
        columns = n.make(Reshape((x.shape[0], group, depth, size)), patches)
        y = n.make(MatMul(), left_side, columns)
        y = n.make(Reshape((x.shape[0], filters, *patches.shape[2:])), y)
        return n.make(Add(), y, n.make(Reshape((filters, 1, 1)), bias))

    def infer(self, *inputs: TensorType) -> TensorType:
        x, offset, mask = inputs
        taps = self.window.kernel[0] * self.window.kernel[1]
        place = (x.shape[0], self.groups * taps, *self.window.output_size(x.shape[2:]))
        moved = (place[0], 2 * place[1], *place[2:])
        if x.shape[1] % self.groups or (offset.shape, mask.shape) != (moved, place):
            raise MdlcError(f"offsets {offset} and mask {mask} do not fit {x}")
        return TensorType((x.shape[0], x.shape[1] * taps, *place[2:]), x.dtype)

    def reference(self, *inputs: Array) -> Array:
        x, offset, mask = inputs
        window = self.window
        taps = window.kernel[0] * window.kernel[1]
        (n, channels), (oh, ow) = x.shape[:2], mask.shape[2:]
        moved = offset.reshape(n, self.groups, taps, 2, oh, ow)
        masks = mask.reshape(n, self.groups, taps, oh, ow)
        result = np.zeros((n, channels, taps, oh, ow))
        each = channels // self.groups
        padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 2), (1, 2)))
        height, width = x.shape[2:]
        for image, group, tap in np.ndindex(n, self.groups, taps):
            i, j = divmod(tap, window.kernel[1])
            rows = np.arange(oh)[:, None] * window.stride[0] - window.pads[0]
            columns = np.arange(ow)[None] * window.stride[1] - window.pads[1]
            v = rows + i * window.dilation[0] + moved[image, group, tap, 0]
            u = columns + j * window.dilation[1] + moved[image, group, tap, 1]
            inside = (v > -1) & (v < height) & (u > -1) & (u < width)
            v, u = np.clip(v, -1, height), np.clip(u, -1, width)
            top, left = np.floor(v).astype(int), np.floor(u).astype(int)
            b, a = v - top, u - left
            own = padded[image, group * each : (group + 1) * each]
            value = sum(
                own[:, top + 1 + p, left + 1 + q] * (b if p else 1 - b) * (a if q else 1 - a)
                for p in (0, 1)
                for q in (0, 1)
            )
            scaled = np.where(inside, value, 0) * masks[image, group, tap]
            result[image, group * each : (group + 1) * each, tap] = scaled
        return result.reshape(n, channels * taps, oh, ow).astype(x.dtype)

    def cost(self, inputs: Sequence[TensorType], output: TensorType) -> Cost:
        return Cost(output.size * 4, sum(t.nbytes for t in inputs) + output.nbytes)

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = random_array(1, 2, 4, 7, 6)
        window = Window((3, 2), (2, 1), (1, 0, 1, 1), (1, 2))
        oh, ow = window.output_size((7, 6))
        offset = random_array(2, 2, 24, oh, ow, low=-3, high=3)
        mask = random_array(3, 2, 12, oh, ow, low=0)
        return (
            Sample(cls(window, 2), (x, offset, mask), label="groups"),
            Sample(cls(window), (x, offset[:, :12], mask[:, :6]), (2,), label="one"),
            Sample(
                cls(Window((1, 1), (1, 1), (0, 0, 0, 0), (1, 1))),
                (x[:1, :1, :1, :1], offset[:1, :2, :1, :1], mask[:1, :1, :1, :1]),
                label="pixel",
            ),
            Sample(
                cls(Window((1, 2), (1, 1), (0, 0, 0, 0), (1, 4))),
                (x[:1, :2, :1], offset[:1, :4, :1, :2], mask[:1, :2, :1, :2]),
                label="row",
            ),
        )
