"""BatchNormalization at inference: a scale and a shift per channel."""

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
from mdlc.compiler.ops.div import Div
from mdlc.compiler.ops.mul import Mul
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.sqrt import Sqrt
from mdlc.compiler.ops.sub import Sub
from mdlc.compiler.types import Array, TensorType


@dataclass(frozen=True)
class BatchNormalization(Op):
    """y = scale * (x - mean) / sqrt(var + epsilon) + bias, per channel (axis 1).

    Inputs: x [N, C, ...], scale, bias, mean, var [C].

    Source: ONNX specification, operator BatchNormalization.
    """

    epsilon: float = 1e-5

    onnx: ClassVar[tuple[str, ...]] = ("BatchNormalization",)
    layout_rule: ClassVar[LayoutRule] = LayoutRule.FOLLOWS
    channelwise: ClassVar[bool] = True

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        if n.attr("training_mode", 0) or not n.attr("spatial", 1):
            raise n.error("training mode and per-element statistics are not supported",
                          hint="export the model in evaluation mode")  # fmt: skip
        if sum(bool(name) for name in n.outputs) > 1:
            raise n.error("outputs other than Y are for training",
                          hint="export the model in evaluation mode")  # fmt: skip
        op = cls(n.attr("epsilon", 1e-5))
        x, *statistics = (n.input(i) for i in range(5))
        if all(each.constant is not None for each in statistics):
            return n.make(op, x, *statistics)
        n.make(op, x, *statistics)  # whether they fit
        shape = (x.shape[1], *(1,) * (len(x.shape) - 2))
        scale, bias, mean, var = (n.make(Reshape(shape), each) for each in statistics)
        epsilon = constant(np.array(op.epsilon, var.type.dtype.numpy))
        deviation = n.make(Sqrt(), n.make(Add(), var, epsilon))
        y = n.make(Mul(), n.make(Sub(), x, mean), n.make(Div(), scale, deviation))
        return n.make(Add(), y, bias)

    def infer(self, *inputs: TensorType) -> TensorType:
        x = inputs[0]
        if len(inputs) != 5 or x.rank < 2 or any(t.shape != (x.shape[1],) for t in inputs[1:]):
            raise MdlcError(f"statistics {[str(t) for t in inputs[1:]]} do not fit {x}")
        return TensorType(x.shape, x.dtype)

    def scale_shift(self, *statistics: Array) -> tuple[Array, Array]:
        """The factor and the summand per channel of (scale, bias, mean, var), in float64."""
        scale, bias, mean, var = (s.astype(np.float64) for s in statistics)
        factor = scale / np.sqrt(var + self.epsilon)
        return factor, bias - mean * factor

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0]
        shape = (1, -1) + (1,) * (x.ndim - 2)
        scale, bias, mean, var = (s.reshape(shape) for s in inputs[1:])
        return np.asarray(scale * (x - mean) / np.sqrt(var + self.epsilon) + bias, x.dtype)

    def to_onnx(self) -> OnnxForm:
        return "BatchNormalization", {"epsilon": self.epsilon}, ()

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        statistics = (
            random_array(2, 5),
            random_array(3, 5),
            random_array(4, 5),
            random_array(5, 5, low=0.1, high=2.0),
        )
        constants = (1, 2, 3, 4)
        return (
            Sample(cls(), (random_array(1, 2, 5, 3, 7), *statistics), constants, "images"),
            Sample(cls(1e-3), (random_array(1, 3, 5), *statistics), constants, "rows"),
        )
