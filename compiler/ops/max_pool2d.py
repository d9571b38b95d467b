"""MaxPool2D: the largest value of each window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Cost, LayoutRule, OnnxForm, Op, Sample, random_array
from mdlc.compiler.ops.max_pool_indices import MaxPoolIndices
from mdlc.compiler.types import Array, TensorType
from mdlc.compiler.values import Values
from mdlc.compiler.window import (
    Window,
    import_pool,
    infer_pool,
    pool_attributes,
    resolve_auto_pad,
)


@dataclass(frozen=True)
class MaxPool2D(Op):
    """Maximum over a sliding window; padding never wins.

    Source: ONNX specification, operator MaxPool.
    """

    window: Window

    onnx: ClassVar[tuple[str, ...]] = ("MaxPool",)
    layout_rule: ClassVar[LayoutRule] = LayoutRule.NATIVE
    channelwise: ClassVar[bool] = True

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node | Sequence[Node]:
        y = import_pool(n, cls)
        if len(n.outputs) < 2 or not n.outputs[1]:
            return y
        x, kernel = n.input(0), tuple(n.attr("kernel_shape"))
        strides, dilations = (n.attr(a, (1,) * len(kernel)) for a in ("strides", "dilations"))
        pads = resolve_auto_pad(n, x.shape[2:], kernel, strides, dilations)
        by_columns = bool(n.attr("storage_order", 0))
        at = MaxPoolIndices(
            kernel, strides, pads, dilations, bool(n.attr("ceil_mode", 0)), by_columns
        )
        return y, n.make(at, x, output=1)

    def infer(self, *inputs: TensorType) -> TensorType:
        return infer_pool(self.window, inputs[0])

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0]
        lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
        result: Array = self.window.patches(x, lowest).max((4, 5))
        return result

    def cost(self, inputs: Sequence[TensorType], output: TensorType) -> Cost:
        return Cost(0, inputs[0].nbytes + output.nbytes)

    def same_scale(self, inputs: Sequence[TensorType]) -> bool:
        return True

    def keeps_magnitude(self, inputs: Sequence[TensorType]) -> bool:
        return True

    def is_identity(self, x: TensorType) -> bool:
        return self.window.is_one

    def value_bounds(self, node: Node, inputs: Sequence[Values]) -> Values:
        x = inputs[0]
        return Values(x.most, x.mean + x.deviation, x.deviation)

    def constant_channels(self, node: Node, known: Sequence[Array]) -> Array:
        return known[0]

    def to_onnx(self) -> OnnxForm:
        return "MaxPool", pool_attributes(self.window), ()

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = random_array(1, 2, 19, 9, 11)
        padded = Window((3, 3), (2, 2), (1, 1, 1, 1))
        signed = np.random.default_rng(1).integers(-128, 127, (1, 37, 9, 11), np.int8)
        unsigned = np.random.default_rng(2).integers(0, 255, (2, 16, 7, 8), np.uint8)
        return (
            Sample(cls(padded), (signed,), label="i8"),
            Sample(cls(padded), (unsigned,), label="u8"),
            Sample(cls(Window((2, 2), (2, 2))), (x,), label="2x2"),
            Sample(cls(padded), (x,), label="3x3_stride2"),
            Sample(cls(Window((3, 3), (2, 2), (0, 0, 1, 1))), (x,), label="uneven"),
            Sample(cls(Window((3, 2), (3, 2), ceil_mode=True)), (x,), label="ceil"),
            Sample(cls(Window((2, 3), dilation=(2, 3))), (x,), label="dilated"),
        )
