"""Integer forms of operators between 8-bit tensors, and of products of their weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mdlc.compiler.fixed_point import fixed_point, limits, sum_multipliers
from mdlc.compiler.ir import Node, make
from mdlc.compiler.op import Op
from mdlc.compiler.ops.add import Add
from mdlc.compiler.ops.average_pool2d import AveragePool2D
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.dense import Dense
from mdlc.compiler.ops.dequantize_linear import DequantizeLinear
from mdlc.compiler.ops.matmul import MatMul
from mdlc.compiler.ops.quantized_add import QuantizedAdd
from mdlc.compiler.ops.quantized_average_pool2d import QuantizedAveragePool2D
from mdlc.compiler.ops.quantized_conv2d import QuantizedConv2D
from mdlc.compiler.ops.quantized_dense import QuantizedDense
from mdlc.compiler.ops.quantized_softmax import QuantizedSoftmax
from mdlc.compiler.ops.reduce import Reduce
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.softmax import Softmax
from mdlc.compiler.types import Array, DType
from mdlc.compiler.window import Window
from mdlc.passes.int9_weights import fits, int9_convolution, pays
from mdlc.passes.quant_params import Declined, Quantized, QuantParams, converted, params_of, widened

# An operator's integer form: of the float node, what its output stands for, and bounds.
Lower = Callable[[Node, QuantParams, int, int], Node]


def lower_core(node: Node, y: QuantParams, low: int, high: int) -> Node:
    """An operator on integers whose output, bounded by low and high, stands for y.

    Raises:
        Declined: it has no such form.
    """
    for kinds, lower in _CORES.items():
        if isinstance(node.op, kinds):
            return lower(node, y, low, high)
    if node.op.same_scale([source.type for source in node.inputs]):
        return _same_scale(node, y, low, high)
    raise Declined(f"{type(node.op).__name__} has no integer form")


def accumulated(node: Node) -> Node:
    """A product of 8-bit integers in float: 32-bit accumulators times their scales.

    Raises:
        Declined: its inputs are no integers.
    """
    op = node.op
    axis = 1 if isinstance(op, Conv2D) else node.type.rank - 1
    x = _bytes(node.inputs[0])
    if isinstance(op, Conv2D | Dense):
        if op.activation is not None or getattr(op, "residual", False):
            raise Declined("it has a fused epilogue")
        w, scales = _weights(node.inputs[1], 0)
        b = _constant_vector(node.inputs[2])
    else:
        w, scales, b = _matrix(node)
    # The step of the output means nothing here: there are neither multiplier nor shift.
    operands = _product(x, w, scales, b, QuantParams(float(scales.max() * x.scale), 0, DType.I8))[
        :2
    ]
    fixed = (
        QuantizedConv2D(op.stride, op.pads, op.dilation, op.groups, x.zero_point, dtype=DType.I32)
        if isinstance(op, Conv2D)
        else QuantizedDense(x.zero_point, dtype=DType.I32)
    )
    wide = make(fixed, x.node, *operands, name=node.name, origin=node.origin)
    steps = (scales * x.scale).astype(np.float32)
    zeros = np.zeros(len(steps), np.int32)
    return make(DequantizeLinear(axis), wide, constant(steps), constant(zeros))


def _bytes(node: Node) -> Quantized:
    """The integers behind a float tensor."""
    params = params_of(node)
    if params is None:
        raise Declined(f"{node.name or type(node.op).__name__!r} is not stored in 8 bits")
    return Quantized(node.inputs[0], params)


def _weights(node: Node, axis: int) -> tuple[Array, Array]:
    """Weights as int8 without a zero point, and the scale (float64) of each output channel.

    Args:
        axis: of the output channels.
    """
    centred, scales = _centred_weights(node, axis)
    if not fits(centred):
        raise Declined("the weights less their zero point do not fit 8 bits")
    return centred.astype(np.int8), scales


def _centred_weights(node: Node, axis: int) -> tuple[Array, Array]:
    """The same as int32, whatever range they have."""
    op, inputs = node.op, [source.constant for source in node.inputs]
    if not isinstance(op, DequantizeLinear) or any(value is None for value in inputs):
        raise Declined("the weights are not stored in 8 bits")
    w, scale, zero = (value for value in inputs if value is not None)
    if w.dtype not in (np.int8, np.uint8):
        raise Declined(f"the weights have {w.dtype} values")
    if scale.ndim and scale.size > 1 and op.axis != axis:
        raise Declined("the weights' scales do not go with output channels")
    shape = [1] * w.ndim
    shape[axis] = -1
    centred = w.astype(np.int32) - zero.astype(np.int32).reshape(shape if zero.size > 1 else ())
    scales = np.broadcast_to(scale.astype(np.float64).reshape(-1), (w.shape[axis],))
    if not (np.isfinite(scales).all() and (scales > 0).all()):
        raise Declined("a scale of the weights is not positive")
    return centred, scales


def _product(x: Quantized, w: Array, scales: Array, b: Array, y: QuantParams) -> list[Node]:
    """The constant inputs of a product: weights [M, ...], bias, multiplier and shift."""
    unit = scales * x.scale
    wide = w.reshape(len(w), -1).astype(np.int64)
    bias = np.rint(b.astype(np.float64) / unit) - x.zero_point * wide.sum(1)
    if np.any(np.abs(bias) + 255 * np.abs(wide).sum(1) >= 2.0**31):
        raise Declined("sums could leave 32 bits")
    values = (w, bias.astype(np.int32), *fixed_point(unit / y.scale))
    return [constant(value) for value in values]


def _constant_vector(node: Node) -> Array:
    value = widened(node)
    if value is None:
        raise Declined("the bias is computed at run time")
    return value


def _conv(node: Node, y: QuantParams, low: int, high: int) -> Node:
    op = node.op
    assert isinstance(op, Conv2D)
    if op.activation is not None or op.residual:
        raise Declined("it has a fused epilogue")
    x = _bytes(node.inputs[0])
    w, scales = _centred_weights(node.inputs[1], 0)
    b = _constant_vector(node.inputs[2])
    fixed = QuantizedConv2D(
        op.stride, op.pads, op.dilation, op.groups, x.zero_point, y.zero_point, low, high, y.dtype
    )
    if fits(w):
        return make(fixed, x.node, *_product(x, w.astype(np.int8), scales, b, y))
    if not pays(w, op.groups):
        raise Declined("the weights less their zero point do not fit 8 bits")

    def operands(some: Array, bias: Array, channels: Array) -> list[Node]:
        return _product(x, some, scales[channels], bias, y)

    # In the worst case the clipped part alone: both together must stay inside 32 bits.
    _product(x, w, scales, b, y)
    return int9_convolution(fixed, x.node, w, scales * x.scale, b, y.constants(), operands)


def _matrix(node: Node) -> tuple[Array, Array, Array]:
    """Weights of a MatMul with one matrix as those of a Dense, their scales, and no bias."""
    if node.inputs[1].type.rank != 2:
        raise Declined("it is not a product with one matrix")
    w, scales = _weights(node.inputs[1], 1)
    return np.ascontiguousarray(w.T), scales, np.zeros(w.shape[1])


def _dense(node: Node, y: QuantParams, low: int, high: int) -> Node:
    op = node.op
    if isinstance(op, Dense):
        if op.activation is not None:
            raise Declined("it has a fused epilogue")
        w, scales = _weights(node.inputs[1], 0)
        b = _constant_vector(node.inputs[2])
    else:
        w, scales, b = _matrix(node)
    x = _bytes(node.inputs[0])
    operands = _product(x, w, scales, b, y)
    return make(QuantizedDense(x.zero_point, y.zero_point, low, high, y.dtype), x.node, *operands)


def _add(node: Node, y: QuantParams, low: int, high: int) -> Node:
    a, b = (_summand(source, node) for source in node.inputs)
    factors = a.scale / y.scale, b.scale / y.scale
    sum_multipliers(*factors)
    op = QuantizedAdd(*factors, a.zero_point, b.zero_point, y.zero_point, low, high, y.dtype)
    return make(op, a.node, b.node)


def _summand(source: Node, whole: Node) -> Quantized:
    found = _bytes(source)
    if found.node.constant is not None:
        raise Declined("an operand is a constant")
    if found.node.shape != whole.shape:
        raise Declined("an operand is broadcast")
    return found


def _mean(node: Node, y: QuantParams, low: int, high: int) -> Node:
    op, x = node.op, _bytes(node.inputs[0])
    shape: Sequence[int] | None = None
    if isinstance(op, Reduce):
        if op.kind != "mean" or op.axes != (2, 3) or node.inputs[0].type.rank != 4:
            raise Declined("it is not a mean over an image")
        height, width = node.inputs[0].shape[2:]
        window, include = Window((height, width)), False
        shape = None if op.keepdims else node.shape
    else:
        assert isinstance(op, AveragePool2D)
        window, include = op.window, op.include_pad
    fixed = QuantizedAveragePool2D(
        window, x.scale / y.scale, include, x.zero_point, y.zero_point, low, high, y.dtype
    )
    result = make(fixed, x.node)
    return result if shape is None else make(Reshape(tuple(shape)), result)


def _softmax(node: Node, y: QuantParams, low: int, high: int) -> Node:
    op, x = node.op, _bytes(node.inputs[0])
    assert isinstance(op, Softmax)
    if op.log:
        raise Declined("it is the logarithm of a softmax")
    return make(
        QuantizedSoftmax(op.axis, x.scale, y.scale, y.zero_point, low, high, y.dtype), x.node
    )


def _same_scale(node: Node, y: QuantParams, low: int, high: int) -> Node:
    """Movements and the like: on integers they are what they are on floats."""
    if (low, high) != limits(y.dtype):
        raise Declined("a bound follows it")
    op = node.op
    moved = op.moves([source.type for source in node.inputs]) or (0,)
    sources = {index: _bytes(node.inputs[index]) for index in moved}
    # Several tensors get one scale first; that of one goes through, and changes behind it.
    kept = y if len(moved) > 1 else sources[moved[0]].params
    found = {index: converted(x, kept) for index, x in sources.items()}
    inputs = [found.get(index, source) for index, source in enumerate(node.inputs)]
    filled = op.with_fill(lambda value: float(kept.quantize(value)))
    return converted(Quantized(make(filled, *inputs), kept), y)


_CORES: dict[type[Op] | tuple[type[Op], ...], Lower] = {
    Conv2D: _conv,
    (Dense, MatMul): _dense,
    Add: _add,
    (AveragePool2D, Reduce): _mean,
    Softmax: _softmax,
}
