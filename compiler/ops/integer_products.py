"""ConvInteger and MatMulInteger: sums of products of 8-bit integers, in 32 bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Op
from mdlc.compiler.ops.add import Add
from mdlc.compiler.ops.cast import Cast
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.matmul import MatMul
from mdlc.compiler.ops.mul import Mul
from mdlc.compiler.ops.quantized_conv2d import QuantizedConv2D
from mdlc.compiler.ops.quantized_dense import QuantizedDense
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.sub import Sub
from mdlc.compiler.types import Array, DType

# Products of two integers of 9 bits, of which float32 adds so many exactly.
MAX_EXACT = 256


@dataclass(frozen=True)
class IntegerProduct(Op):
    """Imported as QuantizedConv2D or QuantizedDense with accumulators for output.

    Sources: ONNX specification, operators ConvInteger and MatMulInteger.
    """

    onnx: ClassVar[tuple[str, ...]] = ("ConvInteger", "MatMulInteger")

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x, w = n.input(0), n.input(1)
        zeros = [n.optional(2), n.optional(3)]
        rank_known = len(w.shape) == (4 if n.op_type == "ConvInteger" else 2)
        if w.constant is None or not rank_known:
            return _in_float(n, x, w, zeros)
        product = _conv if n.op_type == "ConvInteger" else _dense
        weights = w.constant.astype(np.int32) - _along(zeros[1], w, n.op_type)
        result, zero = product(n, x, weights), zeros[1]
        if zero is None or zero.constant is not None:
            return result
        # Zero points of weights at run time: of each, the sum of x under the filter.
        count = weights.shape[0 if n.op_type == "ConvInteger" else 1]
        if zero.type.size not in (1, count):
            raise n.error(f"{zero.type} are no zero points of {count} channels")
        sums = product(n, x, np.ones_like(weights))
        each = n.make(Cast(DType.I32), _channels(n, zero))
        return n.make(Sub(), result, n.make(Mul(), sums, each))


def _along(zero: Node | None, w: Node, op_type: str) -> Array:
    """The weights' zero point, to be subtracted from them."""
    if zero is None or zero.constant is None:
        return np.zeros((), np.int32)
    value = zero.constant.astype(np.int32)
    if value.size == 1:
        return value.reshape(())
    return value.reshape((-1, 1, 1, 1) if op_type == "ConvInteger" else (1, -1))


def _channels(n: OnnxNode, zero: Node) -> Node:
    """Zero points of the weights, as they are broadcast to the product."""
    if zero.type.size == 1:
        return _scalar(n, zero)
    count = zero.type.size
    return n.make(Reshape((count, 1, 1) if n.op_type == "ConvInteger" else (count,)), zero)


def _conv(n: OnnxNode, x: Node, weights: Array) -> Node:
    probe = Conv2D.from_onnx(_as_float(n, "Conv", x, constant(weights.astype(np.float32))))
    op = probe.op
    if not isinstance(op, Conv2D):
        raise n.error("1-D convolutions are not supported")
    ones = np.ones((1, *x.shape[1:]), np.float64)

    def made(w: Array, zero: int) -> Node:
        fixed = QuantizedConv2D(op.stride, op.pads, op.dilation, op.groups, zero, dtype=DType.I32)
        bias = -zero * w.reshape(len(w), -1).astype(np.int64).sum(1)
        return n.make(fixed, x, constant(w), constant(bias.astype(np.int32)))

    def reach(w: Array) -> Array:
        """The sum of the weights that meet the image, at every output pixel."""
        return op.reference(ones, w.astype(np.float64), np.zeros(len(w)))

    return _combined(n, weights, made, reach)


def _dense(n: OnnxNode, x: Node, weights: Array) -> Node:
    def made(w: Array, zero: int) -> Node:
        bias = -zero * w.astype(np.int64).sum(0)
        fixed = QuantizedDense(zero, dtype=DType.I32)
        turned = constant(np.ascontiguousarray(w.T))
        return n.make(fixed, x, turned, constant(bias.astype(np.int32)))

    return _combined(n, weights, made, lambda w: w.astype(np.int64).sum(0))


def _combined(
    n: OnnxNode,
    weights: Array,
    made: Callable[[Array, int], Node],
    reach: Callable[[Array], Array],
) -> Node:
    """The product for weights of up to 9 bits, and a zero point of x known or not.

    Args:
        made: the product with weights of 8 bits and a zero point.
        reach: what the product would be for an x of ones.
    """
    zero = n.optional(2)
    if zero is not None and zero.type.size != 1:
        raise n.error("a zero point for every row is not supported")
    known = zero is None or zero.constant is not None
    offset = 0 if zero is None or zero.constant is None else int(zero.constant.reshape(()))
    # Weights less their zero point may take 9 bits: sets of 8 bits that add up to them.
    first = np.clip(weights, -128, 127)
    rest = weights - first
    result = made(first.astype(np.int8), offset)
    while rest.any():
        part = np.clip(rest, -128, 127)
        result, rest = n.make(Add(), result, made(part.astype(np.int8), offset)), rest - part
    if known:
        return result
    assert zero is not None
    total = constant(np.rint(reach(weights)).astype(np.int32))
    shift = n.make(Mul(), total, n.make(Cast(DType.I32), _scalar(n, zero)))
    return n.make(Sub(), result, shift)


def _scalar(n: OnnxNode, zero: Node) -> Node:
    return zero if zero.shape == () else n.make(Reshape(()), zero)


def _in_float(n: OnnxNode, x: Node, w: Node, zeros: list[Node | None]) -> Node:
    """Both sides computed at run time: in float32, where that is exact."""
    depth = int(np.prod(w.shape[1:])) if n.op_type == "ConvInteger" else w.shape[-2]
    if depth > MAX_EXACT:
        raise n.error(
            f"sums of {depth} products of integers computed at run time are not exact in float32",
            hint="make the weights constants",
        )
    sides = []
    for side, zero in zip((x, w), zeros, strict=True):
        wide = n.make(Cast(DType.F32), side)
        if zero is not None:
            each = _rows(n, side, zero, zero is zeros[1])
            wide = n.make(Sub(), wide, n.make(Cast(DType.F32), each))
        sides.append(wide)
    if n.op_type == "ConvInteger":
        y = Conv2D.from_onnx(_as_float(n, "Conv", *sides))
    else:
        y = n.make(MatMul(), *sides)
    return n.make(Cast(DType.I32), y)


def _rows(n: OnnxNode, side: Node, zero: Node, weights: bool) -> Node:
    """A zero point for every row of x, or for every column or filter of the weights."""
    if zero.type.size == 1:
        return _scalar(n, zero)
    axis = 0 if n.op_type == "ConvInteger" else len(side.shape) - (1 if weights else 2)
    shape = [1] * len(side.shape)
    if zero.type.size != side.shape[axis] or (n.op_type == "ConvInteger" and not weights):
        raise n.error(f"zero points {zero.type} do not fit {side.type}")
    shape[axis] = zero.type.size
    return n.make(Reshape(tuple(shape)), zero)


def _as_float(n: OnnxNode, op_type: str, *inputs: Node) -> OnnxNode:
    return OnnxNode(op_type, n.opset, inputs, n.outputs, n.attributes, n.name)
