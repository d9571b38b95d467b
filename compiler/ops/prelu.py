"""PRelu: x where positive, else slope * x."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, less, select
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Elementwise, Sample, binary_samples
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class PRelu(Elementwise):
    """y = x if x >= 0 else slope * x. Source: ONNX specification, operator PRelu."""

    onnx: ClassVar[tuple[str, ...]] = ("PRelu",)
    arity: ClassVar[int] = 2

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x, slope = n.input(0), n.input(1)
        # One for each channel, as before operator set 7; models brought up to date may keep it.
        channels = len(slope.shape) == 1 < len(x.shape) - 1 and slope.shape[0] == x.shape[1]
        if channels and (n.opset < 7 or slope.shape[0] not in (1, x.shape[-1])):
            slope = n.make(Reshape((*slope.shape, *(1,) * (len(x.shape) - 2))), slope)
        return n.make(cls(), x, slope)

    def expr(self, *x: Expr) -> Expr:
        return select(less(x[0], 0), x[0] * x[1], x[0])

    def reference(self, *inputs: Array) -> Array:
        return np.where(inputs[0] < 0, inputs[0] * inputs[1], inputs[0])

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        return binary_samples(cls(), broadcast_first=False)
