"""InstanceNormalization: every channel of every image to mean 0 and variance 1, then scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import LayoutRule, OnnxForm, Op, Sample, random_array
from mdlc.compiler.ops.add import Add
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.mul import Mul
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.types import Array, TensorType


@dataclass(frozen=True)
class InstanceNormalization(Op):
    """Inputs: x [N, C, ...], scale [C], bias [C]; statistics over all axes behind C.

    Source: ONNX specification, operator InstanceNormalization.
    """

    epsilon: float = 1e-5

    onnx: ClassVar[tuple[str, ...]] = ("InstanceNormalization",)
    layout_rule: ClassVar[LayoutRule] = LayoutRule.NATIVE
    channelwise: ClassVar[bool] = True

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        op = cls(n.attr("epsilon", 1e-5))
        x, scale, bias = (n.input(i) for i in range(3))
        y = n.make(op, x, scale, bias)
        if scale.constant is not None and bias.constant is not None:
            return y
        shape, kind = (x.shape[1], *(1,) * (len(x.shape) - 2)), scale.type.dtype.numpy
        one, zero = (constant(np.full(x.shape[1], value, kind)) for value in (1, 0))
        y = n.make(Mul(), n.make(op, x, one, zero), n.make(Reshape(shape), scale))
        return n.make(Add(), y, n.make(Reshape(shape), bias))

    def infer(self, *inputs: TensorType) -> TensorType:
        x = inputs[0]
        if len(inputs) != 3 or x.rank < 3 or any(t.shape != (x.shape[1],) for t in inputs[1:]):
            raise MdlcError(f"scale and bias {[str(t) for t in inputs[1:]]} do not fit {x}")
        return TensorType(x.shape, x.dtype)

    def reference(self, *inputs: Array) -> Array:
        x, scale, bias = inputs
        axes = tuple(range(2, x.ndim))
        shape = (1, -1) + (1,) * (x.ndim - 2)
        wide = x.astype(np.float64)
        mean, var = wide.mean(axes, keepdims=True), wide.var(axes, keepdims=True)
        y = (wide - mean) / np.sqrt(var + self.epsilon)
        return np.asarray(y * scale.reshape(shape) + bias.reshape(shape), x.dtype)

    def to_onnx(self) -> OnnxForm:
        return "InstanceNormalization", {"epsilon": self.epsilon}, ()

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        values = random_array(1, 2, 5, 4, 7), random_array(2, 5), random_array(3, 5)
        return (Sample(cls(), values, (1, 2), "images"),)
