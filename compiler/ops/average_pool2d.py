"""AveragePool2D: the mean of each window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Cost, LayoutRule, OnnxForm, Op, Sample, random_array
from mdlc.compiler.types import Array, TensorType
from mdlc.compiler.values import Values
from mdlc.compiler.window import Window, import_pool, infer_pool, pool_attributes


@dataclass(frozen=True)
class AveragePool2D(Op):
    """Mean over a sliding window, over the elements inside the image (and its padding).

    Attributes:
        include_pad: whether padding counts as zeros in the mean. What a window of ceil_mode
            reaches beyond the padding never counts.

    Source: ONNX specification, operator AveragePool.
    """

    window: Window
    include_pad: bool = False

    onnx: ClassVar[tuple[str, ...]] = ("AveragePool",)
    layout_rule: ClassVar[LayoutRule] = LayoutRule.NATIVE
    channelwise: ClassVar[bool] = True

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        include = bool(n.attr("count_include_pad", 0))
        return import_pool(n, lambda window: cls(window, include))

    def infer(self, *inputs: TensorType) -> TensorType:
        return infer_pool(self.window, inputs[0])

    def counts(self, size: Sequence[int]) -> Array:
        """Elements in the mean of each window [OH, OW], for an input of [H, W]."""
        height, width = size
        ones = np.ones((1, 1, height, width))
        window = self.window
        if self.include_pad:
            top, left, bottom, right = window.pads
            ones = np.ones((1, 1, height + top + bottom, width + left + right))
            shape = window.output_size(size)
            patches = replace(window, pads=(0, 0, 0, 0)).patches(ones, 0.0, shape)
        else:
            patches = window.patches(ones, 0.0)
        result: Array = patches.sum((4, 5))[0, 0]
        return result

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0]
        total = self.window.patches(x, 0.0).sum((4, 5), dtype=np.float64)
        return np.asarray(total / self.counts(x.shape[2:]), x.dtype)

    def cost(self, inputs: Sequence[TensorType], output: TensorType) -> Cost:
        return Cost(0, inputs[0].nbytes + output.nbytes)

    def is_identity(self, x: TensorType) -> bool:
        return self.window.is_one

    def keeps_magnitude(self, inputs: Sequence[TensorType]) -> bool:
        return True

    def value_bounds(self, node: Node, inputs: Sequence[Values]) -> Values:
        x = inputs[0]
        return replace(x, sums=(x.times(math.prod(self.window.kernel)),))

    def constant_channels(self, node: Node, known: Sequence[Array]) -> Array:
        return np.where(known[0] == 0, 0.0, np.nan) if self.include_pad else known[0]

    def to_onnx(self) -> OnnxForm:
        attributes = pool_attributes(self.window)
        attributes["count_include_pad"] = int(self.include_pad)
        if self.window.dilation == (1, 1):
            del attributes["dilations"]
        return "AveragePool", attributes, ()

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = random_array(1, 2, 19, 9, 11)
        padded = Window((3, 3), (2, 2), (1, 1, 1, 1))
        return (
            Sample(cls(Window((2, 2), (2, 2))), (x,), label="2x2"),
            Sample(cls(padded), (x,), label="exclude"),
            Sample(cls(padded, True), (x,), label="include"),
            Sample(cls(Window((3, 2), (3, 2), ceil_mode=True)), (x,), label="ceil"),
        )
