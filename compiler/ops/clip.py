"""Clip: min(max(x, low), high); ReLU6 is Clip(0, 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, maximum, minimum
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Elementwise, OnnxForm, Sample, unary_sample
from mdlc.compiler.types import Array, TensorType


@dataclass(frozen=True)
class Clip(Elementwise):
    """y = min(max(x, low), high); infinite bounds are absent ones.

    Source: ONNX specification, operator Clip (bounds are attributes before opset 11).
    """

    low: float = -math.inf
    high: float = math.inf

    onnx: ClassVar[tuple[str, ...]] = ("Clip",)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        if n.opset < 11:
            low, high = n.attr("min", -math.inf), n.attr("max", math.inf)
        else:
            bounds = [n.optional_const(1), n.optional_const(2)]
            low = -math.inf if bounds[0] is None else bounds[0].item()
            high = math.inf if bounds[1] is None else bounds[1].item()
        # Exporters write "no bound" as the largest finite float.
        limit = float(np.finfo(np.float32).max)
        low = -math.inf if low <= -limit else low
        high = math.inf if high >= limit else high
        return n.make(cls(low, high), n.input(0))

    def expr(self, *x: Expr) -> Expr:
        y = x[0]
        if self.low != -math.inf:
            y = maximum(y, self.low)
        if self.high != math.inf:
            y = minimum(y, self.high)
        return y

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0]
        if x.dtype.kind in "iu":
            info = np.iinfo(x.dtype)
            low = info.min if self.low == -math.inf else int(self.low)
            high = info.max if self.high == math.inf else int(self.high)
            return np.asarray(np.minimum(np.maximum(x, x.dtype.type(low)), x.dtype.type(high)))
        return np.asarray(
            np.minimum(np.maximum(x, x.dtype.type(self.low)), x.dtype.type(self.high))
        )

    def to_onnx(self) -> OnnxForm:
        bounds = (self.low, self.high)
        return (
            "Clip",
            {},
            tuple(None if math.isinf(b) else np.array(b, np.float32) for b in bounds),
        )

    def keeps_magnitude(self, inputs: Sequence[TensorType]) -> bool:
        one_side = math.isinf(self.low) or math.isinf(self.high)
        return one_side and self.low <= 1 and self.high >= -1

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        return (
            unary_sample(cls(0.0, 6.0), low=-8.0, high=8.0),
            unary_sample(cls(-1.0)),
            unary_sample(cls(high=0.5)),
        )
