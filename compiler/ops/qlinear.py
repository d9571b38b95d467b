"""Operators on integers with their scales beside them, as the three operators that they mean.

`QLinearConv` is DequantizeLinear of its inputs, Conv, QuantizeLinear; and so for its relatives,
of which ONNX has two and ONNX Runtime (domain com.microsoft) the others. passes/lower_quantized.py
makes one integer operator of the three, as it does where a model spells them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Op
from mdlc.compiler.ops.cast import Cast
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.dequantize_linear import DequantizeLinear
from mdlc.compiler.ops.quantize_linear import QuantizeLinear, linear_axis, one_scale
from mdlc.compiler.ops.transpose import Transpose
from mdlc.compiler.types import DType

MICROSOFT = "com.microsoft."
# Operators of one input: X, its scale and zero point, then those of Y.
_UNARY = {
    "QLinearAveragePool": "AveragePool",
    "QLinearGlobalAveragePool": "GlobalAveragePool",
    "QLinearLeakyRelu": "LeakyRelu",
    "QLinearReduceMean": "ReduceMean",
    "QLinearSigmoid": "Sigmoid",
    "QLinearSoftmax": "Softmax",
}
_BINARY = {"QLinearAdd": "Add", "QLinearMul": "Mul", "QLinearMatMul": "MatMul"}
# What only the quantised form has.
_OWN_ATTRIBUTES = ("channels_last", "opset")


@dataclass(frozen=True)
class QLinear(Op):
    """Imported as DequantizeLinear, a float operator and QuantizeLinear.

    Sources: ONNX specification, operators QLinearConv and QLinearMatMul; ONNX Runtime's
    contributed operators, the others.
    """

    onnx: ClassVar[tuple[str, ...]] = (
        "QLinearConv",
        MICROSOFT + "QLinearConv",
        "QLinearMatMul",
        *(MICROSOFT + name for name in ("QLinearAdd", "QLinearMul", "QLinearConcat", "QGemm")),
        *(MICROSOFT + name for name in _UNARY),
    )

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        name = n.op_type
        if n.attr("channels_last", 0):
            return cls._channels_last(n)
        if name == "QLinearConv":
            return cls._conv(n)
        if name == "QGemm":
            return cls._gemm(n)
        if name == "QLinearConcat":
            if len(n.inputs) < 5 or len(n.inputs) % 3 != 2:
                raise n.error(f"has {len(n.inputs)} inputs")
            parts = [_widened(n, index) for index in range(2, len(n.inputs), 3)]
            return _rounded(n, _computed(n, "Concat", parts), 0)
        if name in _BINARY:
            parts = [_widened(n, 0), _widened(n, 3, channels=-1)]
            return _rounded(n, _computed(n, _BINARY[name], parts), 6)
        version = n.attr("opset", n.opset)
        made = _computed(replace(n, opset=version), _UNARY[name], [_widened(n, 0)])
        return _rounded(n, made, 3)

    @classmethod
    def _channels_last(cls, n: OnnxNode) -> Node:
        """On tensors whose channels come last; the filters' do not."""
        x = n.input(0)
        rank = len(x.shape)
        if rank < 3:
            raise n.error(f"channels_last on {x.type}")
        moved = n.make(Transpose((0, rank - 1, *range(1, rank - 1))), x)
        rest = {key: value for key, value in n.attributes.items() if key != "channels_last"}
        y = cls.from_onnx(replace(n, inputs=(moved, *n.inputs[1:]), attributes=rest))
        return n.make(Transpose((0, *range(2, rank), 1)), y)

    @staticmethod
    def _conv(n: OnnxNode) -> Node:
        parts = [_widened(n, 0), _widened(n, 3, channels=0)]
        if n.has(8):
            parts.append(_bias(n, n.input(8)))
        return _rounded(n, _computed(n, "Conv", parts), 6)

    @staticmethod
    def _gemm(n: OnnxNode) -> Node:
        channels = 0 if n.attr("transB", 0) else 1
        parts = [_widened(n, 0), _widened(n, 3, channels=channels)]
        if n.has(6):
            parts.append(_bias(n, n.input(6)))
        # alpha scales what the bias has already been divided by.
        alpha = n.attr("alpha", 1.0)
        if alpha != 1.0:
            raise n.error(f"alpha {alpha:g} is not supported", hint="fold it into the scales")
        made = _computed(n, "Gemm", parts)
        return _rounded(n, made, 7) if n.has(7) else made


def _widened(n: OnnxNode, index: int, channels: int = 1) -> Node:
    """DequantizeLinear of input `index`, whose scale and zero point follow it.

    Args:
        channels: the axis that several scales belong to.
    """
    x, scale = n.input(index), _single(n, index + 1)
    zero = n.optional(index + 2) or constant(np.zeros(scale.shape, x.type.dtype.numpy))
    if zero.type.size == 1 and scale.type.size > 1 and zero.constant is not None:
        zero = constant(np.broadcast_to(zero.constant.reshape(()), scale.shape).copy())
    axis = 1 if scale.type.size == 1 else channels % len(x.shape)
    return n.make(DequantizeLinear(axis), x, *one_scale(scale, zero))


def _single(n: OnnxNode, index: int) -> Node:
    """A scale in float32."""
    scale = n.input(index)
    if scale.constant is None:
        return scale if scale.type.dtype is DType.F32 else n.make(Cast(DType.F32), scale)
    return constant(scale.constant.astype(np.float32), scale.name)


def _bias(n: OnnxNode, b: Node) -> Node:
    """A bias in units of the product of the scales of x and w, as a float."""
    x_scale, w_scale = n.const(1).astype(np.float64), n.const(4).astype(np.float64)
    if b.constant is None:
        raise n.error("the bias must be a constant")
    return constant((b.constant * (x_scale.reshape(-1) * w_scale.reshape(-1))).astype(np.float32))


def _computed(n: OnnxNode, op_type: str, inputs: Sequence[Node]) -> Node:
    """A float operator with the attributes of the quantised one."""
    kept = {key: value for key, value in n.attributes.items() if key not in _OWN_ATTRIBUTES}
    made = Op.importers[op_type].from_onnx(
        replace(n, op_type=op_type, inputs=inputs, attributes=kept)
    )
    return made if isinstance(made, Node) else made[0]


def _rounded(n: OnnxNode, y: Node, index: int) -> Node:
    """QuantizeLinear with the scale at input `index` and the zero point behind it."""
    scale, zero = _single(n, index), n.optional(index + 1)
    if zero is None:
        zero = constant(np.zeros(scale.shape, n.input(0).type.dtype.numpy))
    return n.make(QuantizeLinear(*linear_axis(n, y, scale)), y, *one_scale(scale, zero))
