"""What 8-bit integers stand for (scale, zero point, type), and the nodes that say so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mdlc.compiler.fixed_point import limits
from mdlc.compiler.ir import Node, make
from mdlc.compiler.ops.cast import Cast
from mdlc.compiler.ops.clip import Clip
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.dequantize_linear import DequantizeLinear
from mdlc.compiler.ops.quantize_linear import QuantizeLinear
from mdlc.compiler.ops.requantize import Requantize
from mdlc.compiler.types import Array, DType


@dataclass(frozen=True)
class QuantParams:
    """What integers stand for: scale * (integer - zero). Alike where they are equal."""

    scale: float
    zero_point: int
    dtype: DType

    def quantize(self, value: float) -> int:
        """The nearest integer to a real number (which may be infinite)."""
        scale = np.array(self.scale, np.float32)
        zero = np.array(self.zero_point, self.dtype.numpy)
        with np.errstate(over="ignore"):
            found = QuantizeLinear().reference(np.array(value, np.float32), scale, zero)
        return int(found)

    def constants(self) -> tuple[Node, Node]:
        """Scale and zero point as QuantizeLinear takes them."""
        scale = constant(np.array(self.scale, np.float32))
        return scale, constant(np.array(self.zero_point, self.dtype.numpy))


@dataclass(frozen=True)
class Quantized:
    """A tensor of 8-bit integers and what they stand for."""

    node: Node
    params: QuantParams

    @property
    def scale(self) -> float:
        """Of the tensor."""
        return self.params.scale

    @property
    def zero_point(self) -> int:
        """Zero point of the tensor."""
        return self.params.zero_point


class Declined(Exception):
    """Why an operator stays in float."""


def params_of(node: Node) -> QuantParams | None:
    """What an 8-bit tensor's DequantizeLinear (or Cast to float) node makes of it."""
    source = node.inputs[0].type.dtype if node.inputs else None
    if source not in (DType.I8, DType.U8):
        return None
    if isinstance(node.op, Cast) and node.type.dtype is DType.F32:
        return QuantParams(1.0, 0, source)
    if not isinstance(node.op, DequantizeLinear):
        return None
    return params_from(*node.inputs)


def params_from(_: Node, scale: Node, zero: Node) -> QuantParams | None:
    """What the inputs of a QuantizeLinear or DequantizeLinear make of 8-bit integers."""
    if scale.constant is None or zero.constant is None or scale.shape != ():
        return None
    factor = float(scale.constant)
    if not 0 < factor < np.inf or zero.type.dtype not in (DType.I8, DType.U8):
        return None
    return QuantParams(factor, int(zero.constant), zero.type.dtype)


def widened(node: Node) -> Array | None:
    """The float value of a constant, or of a DequantizeLinear of one."""
    if node.constant is not None:
        return node.constant
    values = [source.constant for source in node.inputs]
    if not isinstance(node.op, DequantizeLinear) or any(value is None for value in values):
        return None
    return node.op.reference(*(value for value in values if value is not None))


def single(node: Node) -> Array | None:
    """The number that all elements of a constant are, as an array of rank 0."""
    value = node.constant
    if value is None or not value.size or (value != value.flat[0]).any():
        return None
    return value.reshape(-1)[:1].reshape(())


def bounds(activation: Node, y: QuantParams) -> tuple[int, int]:
    """What a Relu or Clip leaves of the integers of its output."""
    low, high = 0.0, np.inf
    if isinstance(activation.op, Clip):
        low, high = activation.op.low, activation.op.high
    return y.quantize(low), y.quantize(high)


def converted(x: Quantized, y: QuantParams) -> Node:
    """The integers of one meaning as those of another."""
    if x.params == y:
        return x.node
    return make(
        Requantize(x.scale / y.scale, x.zero_point, y.zero_point, *limits(y.dtype), y.dtype), x.node
    )
