"""LayerNormalization: trailing axes to mean 0 and variance 1, then scaled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import OnnxForm, Op, Sample, normalize_axis, random_array
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.types import Array, TensorType


@dataclass(frozen=True)
class LayerNormalization(Op):
    """Inputs: x, scale and bias of the shape of x's axes from `axis` on.

    Source: ONNX specification, operator LayerNormalization.
    """

    axis: int
    epsilon: float = 1e-5

    onnx: ClassVar[tuple[str, ...]] = ("LayerNormalization",)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x, scale = n.input(0), n.input(1)
        axis = normalize_axis(n.attr("axis", -1), len(x.shape))
        if sum(bool(name) for name in n.outputs) > 1:
            raise n.error("outputs Mean and InvStdDev are not supported")
        wanted = x.shape[axis:]
        bias = n.optional(2) or constant(np.zeros(wanted, x.type.dtype.numpy))
        parts = []
        for part in (scale, bias):
            value = part.constant
            if value is None:
                raise n.error("scale and bias must be constants")
            parts.append(constant(np.broadcast_to(value, wanted).copy()))
        return n.make(cls(axis, n.attr("epsilon", 1e-5)), x, *parts)

    def infer(self, *inputs: TensorType) -> TensorType:
        x = inputs[0]
        if len(inputs) != 3 or any(t.shape != x.shape[self.axis :] for t in inputs[1:]):
            raise MdlcError(f"scale and bias {[str(t) for t in inputs[1:]]} do not fit {x}")
        return TensorType(x.shape, x.dtype)

    def reference(self, *inputs: Array) -> Array:
        x, scale, bias = inputs
        axes = tuple(range(self.axis, x.ndim))
        wide = x.astype(np.float64)
        mean, var = wide.mean(axes, keepdims=True), wide.var(axes, keepdims=True)
        return np.asarray((wide - mean) / np.sqrt(var + self.epsilon) * scale + bias, x.dtype)

    def row(self, shape: Sequence[int]) -> int:
        """Number of elements normalised together."""
        return math.prod(shape[self.axis :])

    def follows(self, inputs: Sequence[TensorType], index: int, axis: int) -> int | None:
        return axis if index == 0 and axis < self.axis else None

    def to_onnx(self) -> OnnxForm:
        return "LayerNormalization", {"axis": self.axis, "epsilon": self.epsilon}, ()

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = random_array(1, 2, 3, 5, 11)
        last = random_array(2, 11), random_array(3, 11)
        two = random_array(4, 5, 11), random_array(5, 5, 11)
        return (
            Sample(cls(3), (x, *last), (1, 2), "last"),
            Sample(cls(2), (x, *two), (1, 2), "two"),
        )
