"""DequantizeLinear, operator, QuantizeLinear: the three become one operator on integers.

The pairs of QuantizeLinear and DequantizeLinear say which tensors have 8 bits and what they
stand for; where an operator stands between them, it is computed in integers. What has no such
form stays: the integers are widened, the operator computes in float, the result is rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.fixed_point import fixed_point, limits, sum_multipliers
from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.op import Elementwise, Op
from mdlc.compiler.ops.add import Add
from mdlc.compiler.ops.average_pool2d import AveragePool2D
from mdlc.compiler.ops.cast import Cast
from mdlc.compiler.ops.channel_shuffle import ChannelShuffle
from mdlc.compiler.ops.clip import Clip
from mdlc.compiler.ops.concat import Concat
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.dense import Dense
from mdlc.compiler.ops.depth_to_space import DepthToSpace
from mdlc.compiler.ops.dequantize_linear import DequantizeLinear
from mdlc.compiler.ops.lookup import Lookup
from mdlc.compiler.ops.matmul import MatMul
from mdlc.compiler.ops.max_pool2d import MaxPool2D
from mdlc.compiler.ops.pad import Pad
from mdlc.compiler.ops.quantize_linear import QuantizeLinear
from mdlc.compiler.ops.quantized_add import QuantizedAdd
from mdlc.compiler.ops.quantized_average_pool2d import QuantizedAveragePool2D
from mdlc.compiler.ops.quantized_conv2d import QuantizedConv2D
from mdlc.compiler.ops.quantized_dense import QuantizedDense
from mdlc.compiler.ops.reduce import Reduce
from mdlc.compiler.ops.relu import Relu
from mdlc.compiler.ops.requantize import Requantize
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.resize import Resize
from mdlc.compiler.ops.slice import Slice
from mdlc.compiler.ops.space_to_depth import SpaceToDepth
from mdlc.compiler.ops.transpose import Transpose
from mdlc.compiler.rewrite import Budget, Event
from mdlc.compiler.types import Array, DType
from mdlc.compiler.window import Window
from mdlc.passes.wide_weights import fits, pays, wide_convolution

# The same elements elsewhere, or some of them: right on integers as they are.
MOVEMENT = (
    ChannelShuffle, Concat, DepthToSpace, MaxPool2D, Pad, Reshape, Slice, SpaceToDepth, Transpose,
)  # fmt: skip
# A function of one tensor is tabulated if it has at most this many operators.
LARGEST_FUNCTION = 8


@dataclass(frozen=True)
class Linear:
    """What integers stand for: scale * (integer - zero). Alike where they are equal."""

    scale: float
    zero: int
    dtype: DType

    def quantize(self, value: float) -> int:
        """The nearest integer to a real number (which may be infinite)."""
        scale = np.array(self.scale, np.float32)
        zero = np.array(self.zero, self.dtype.numpy)
        with np.errstate(over="ignore"):
            found = QuantizeLinear().reference(np.array(value, np.float32), scale, zero)
        return int(found)

    def constants(self) -> tuple[Node, Node]:
        """Scale and zero point as QuantizeLinear takes them."""
        scale = constant(np.array(self.scale, np.float32))
        return scale, constant(np.array(self.zero, self.dtype.numpy))


@dataclass(frozen=True)
class Bytes:
    """A tensor of 8-bit integers and what they stand for."""

    node: Node
    linear: Linear

    @property
    def scale(self) -> float:
        """Of the tensor."""
        return self.linear.scale

    @property
    def zero(self) -> int:
        """Zero point of the tensor."""
        return self.linear.zero


# An operator's integer form: of the float node, what its output stands for, and bounds.
Lower = Callable[[Node, Linear, int, int], Node]


class Declined(Exception):
    """Why an operator stays in float."""


def lower_quantized(graph: Graph, *, budget: Budget | None = None) -> Graph:
    """Integer operators wherever an operator stands between 8-bit tensors.

    Weights that are still read in float afterwards are widened now.
    """
    graph = _weights_in_place(graph)
    lowering = _Lowering(graph, budget or Budget())
    return _widen_constants(graph.rebuild(lowering.visit))


def linear_of(node: Node) -> Linear | None:
    """What an 8-bit tensor's DequantizeLinear (or Cast to float) node makes of it."""
    source = node.inputs[0].type.dtype if node.inputs else None
    if source not in (DType.I8, DType.U8):
        return None
    if isinstance(node.op, Cast) and node.type.dtype is DType.F32:
        return Linear(1.0, 0, source)
    if not isinstance(node.op, DequantizeLinear):
        return None
    return _linear(*node.inputs)


def _linear(_: Node, scale: Node, zero: Node) -> Linear | None:
    if scale.constant is None or zero.constant is None or scale.shape != ():
        return None
    factor = float(scale.constant)
    if not 0 < factor < np.inf or zero.type.dtype not in (DType.I8, DType.U8):
        return None
    return Linear(factor, int(zero.constant), zero.type.dtype)


def widened(node: Node) -> Array | None:
    """The float value of a constant, or of a DequantizeLinear of one."""
    if node.constant is not None:
        return node.constant
    values = [source.constant for source in node.inputs]
    if not isinstance(node.op, DequantizeLinear) or any(value is None for value in values):
        return None
    return node.op.reference(*(value for value in values if value is not None))


def _weights_in_place(graph: Graph) -> Graph:
    """Weights as products want them: rearranged now, and biases beside them.

    Exporters transpose a matrix behind its DequantizeLinear, and add the bias of a MatMul.
    """
    users = graph.users()

    def visit(old: Node, fresh: Node) -> Node:
        if isinstance(fresh.op, Transpose | Reshape):
            return _rearranged(fresh)
        if isinstance(fresh.op, Add):
            for product, bias in (fresh.inputs, fresh.inputs[::-1]):
                alone = any(
                    len(users[source]) == 1 and isinstance(source.op, MatMul)
                    for source in old.inputs
                )
                if alone and (dense := _with_bias(product, bias, fresh)) is not None:
                    return dense
        return fresh

    return graph.rebuild(visit)


def _rearranged(node: Node) -> Node:
    """A Transpose or Reshape of widened constants, as widened constants."""
    source, op = node.inputs[0], node.op
    if not isinstance(source.op, DequantizeLinear) or source.inputs[0].constant is None:
        return node
    axis, values = source.op.axis, source.inputs[0].constant
    if source.inputs[1].shape != ():
        if isinstance(op, Transpose):
            axis = op.perm.index(axis)
        elif axis or node.shape[:1] != values.shape[:1]:
            return node
    moved = constant(op.reference(values), source.inputs[0].name)
    return make(DequantizeLinear(axis), moved, *source.inputs[1:], name=node.name)


def _with_bias(product: Node, bias: Node, whole: Node) -> Node | None:
    """MatMul and Add as Dense, where both have constants."""
    if not isinstance(product.op, MatMul) or product.shape != whole.shape:
        return None
    x, w = product.inputs
    b = widened(bias)
    if b is None or w.type.rank != 2 or not isinstance(w.op, DequantizeLinear):
        return None
    if b.shape[:-1] not in ((), (1,)) or b.size not in (1, whole.shape[-1]) or widened(w) is None:
        return None
    turned = _rearranged(make(Transpose((1, 0)), w))
    spread = np.broadcast_to(b.reshape(-1), (whole.shape[-1],)).astype(np.float32)
    return make(Dense(), x, turned, constant(spread, bias.name), name=whole.name)


def _widen_constants(graph: Graph) -> Graph:
    def visit(old: Node, fresh: Node) -> Node:
        value = widened(fresh) if isinstance(fresh.op, DequantizeLinear) else None
        return fresh if value is None else constant(value, fresh.name)

    return graph.rebuild(visit)


class _Lowering:
    def __init__(self, graph: Graph, budget: Budget) -> None:
        self._readers = graph.users()
        self._users = {node: len(users) for node, users in self._readers.items()}
        for node in graph.outputs:
            self._users[node] += 1
        self._budget = budget
        self._seen: set[Node] = set()

    def visit(self, old: Node, fresh: Node) -> Node:
        """An integer operator in place of a QuantizeLinear, where there is one."""
        if isinstance(fresh.op, QuantizeLinear) and self._budget.left != 0:
            wanted = _linear(*fresh.inputs)
            if wanted is not None and fresh.inputs[0].type.dtype is DType.F32:
                try:
                    result = self._lowered(old.inputs[0], fresh.inputs[0], wanted)
                except (Declined, MdlcError) as error:
                    self._budget.note(Event("lower_quantized", old.name, False, str(error)))
                else:
                    self._budget.spend()
                    self._budget.note(Event("lower_quantized", old.name, True))
                    if result in self._seen:  # the same integers under another name
                        return result
                    fresh = replace(result, name=old.name or result.name)
        if isinstance(fresh.op, Conv2D | Dense | MatMul) and self._budget.left != 0:
            fresh = self._in_32_bits(old, fresh)
        self._seen.add(fresh)
        return fresh

    def _in_32_bits(self, old: Node, fresh: Node) -> Node:
        """A product of integers whose value is read in float: its accumulators, widened."""
        if any(self._is_rounded(user) for user in self._readers[old]):
            return fresh
        try:
            result = accumulated(fresh)
        except (Declined, MdlcError):
            return fresh
        self._budget.spend()
        return replace(result, name=fresh.name)

    def _is_rounded(self, node: Node) -> bool:
        """Whether a reader of a product makes 8-bit integers of it, perhaps with bounds."""
        if isinstance(node.op, Relu | Clip):
            return any(isinstance(user.op, QuantizeLinear) for user in self._readers[node])
        return isinstance(node.op, QuantizeLinear)

    def _lowered(self, old: Node, fresh: Node, y: Linear) -> Node:
        """The integers of `fresh`, a float tensor that only a QuantizeLinear may read."""
        x = linear_of(fresh)
        if x is not None:
            return converted(Bytes(fresh.inputs[0], x), y)
        low, high = limits(y.dtype)
        if isinstance(fresh.op, Relu | Clip) and self._alone(old):
            core = fresh.inputs[0]
            if linear_of(core) is None and self._alone(old.inputs[0]):
                bottom, top = bounds(fresh, y)
                try:
                    return lower_core(core, y, max(low, bottom), min(high, top))
                except Declined as error:
                    if not isinstance(core.op, Elementwise):
                        raise
                    reason = error
        if self._alone(old):
            try:
                return lower_core(fresh, y, low, high)
            except Declined as error:
                if not isinstance(fresh.op, Elementwise):
                    raise
                reason = error
            try:
                return self._tabulated(old, fresh, y)
            except Declined as error:
                raise Declined(f"{reason}; {error}") from None
        raise Declined("others read the value in float")

    def _alone(self, old: Node) -> bool:
        return self._users[old] == 1

    def _tabulated(self, old: Node, fresh: Node, y: Linear) -> Node:
        """A table, where element-wise operators compute a function of one 8-bit tensor."""
        inside: dict[Node, int] = {old: 0}
        new_of = {old: fresh}
        leaves: set[Node] = set()
        pending = [old]
        while pending:
            node = pending.pop()
            for before, after in zip(node.inputs, new_of[node].inputs, strict=True):
                if after.constant is not None:
                    if single(after) is None:
                        raise Declined("an operand is a tensor of constants")
                elif linear_of(after) is not None:
                    leaves.add(after)
                elif isinstance(after.op, Elementwise) and after.type.dtype is DType.F32:
                    if before not in inside:
                        inside[before] = 0
                        new_of[before] = after
                        pending.append(before)
                    inside[before] += 1
                else:
                    raise Declined(f"an operand comes from {type(after.op).__name__}")
        if len(leaves) != 1 or len(inside) > LARGEST_FUNCTION:
            raise Declined("it is no short function of one 8-bit tensor")
        if any(count != self._users[node] for node, count in inside.items() if node is not old):
            raise Declined("others read a value on the way")
        (leaf,) = leaves
        if leaf.shape != fresh.shape:
            raise Declined("its operand is broadcast")
        x = linear_of(leaf)
        assert x is not None
        table = y_table(fresh, leaf, x, y)
        first, _ = limits(x.dtype)
        same = x.dtype is y.dtype and np.array_equal(table, np.arange(256) + first)
        source = leaf.inputs[0]
        return source if same else make(Lookup(), source, constant(table))


def y_table(root: Node, leaf: Node, x: Linear, y: Linear) -> Array:
    """The 256 values of a function of one tensor, from the nodes that compute it in float."""
    first, last = limits(x.dtype)
    every = np.arange(first, last + 1).astype(x.dtype.numpy)
    values: dict[Node, Array] = {
        leaf: DequantizeLinear().reference(every, *(c.constant for c in x.constants()))  # type: ignore[arg-type]
    }

    def value(node: Node) -> Array:
        number = single(node)
        if number is not None:
            return number
        if node not in values:
            with np.errstate(all="ignore"):
                found = node.op.reference(*(value(source) for source in node.inputs))
            values[node] = np.asarray(found)
        return values[node]

    scale, zero = (c.constant for c in y.constants())
    return QuantizeLinear().reference(value(root), scale, zero)  # type: ignore[arg-type]


def single(node: Node) -> Array | None:
    """The number that all elements of a constant are, as an array of rank 0."""
    value = node.constant
    if value is None or not value.size or (value != value.flat[0]).any():
        return None
    return value.reshape(-1)[:1].reshape(())


def bounds(activation: Node, y: Linear) -> tuple[int, int]:
    """What a Relu or Clip leaves of the integers of its output."""
    low, high = 0.0, np.inf
    if isinstance(activation.op, Clip):
        low, high = activation.op.low, activation.op.high
    return y.quantize(low), y.quantize(high)


def converted(x: Bytes, y: Linear) -> Node:
    """The integers of one meaning as those of another."""
    if x.linear == y:
        return x.node
    return make(Requantize(x.scale / y.scale, x.zero, y.zero, *limits(y.dtype), y.dtype), x.node)


def lower_core(node: Node, y: Linear, low: int, high: int) -> Node:
    """An operator on integers whose output, bounded by low and high, stands for y.

    Raises:
        Declined: it has no such form.
    """
    for kinds, lower in _CORES.items():
        if isinstance(node.op, kinds):
            return lower(node, y, low, high)
    raise Declined(f"{type(node.op).__name__} has no integer form")


def _bytes(node: Node) -> Bytes:
    """The integers behind a float tensor."""
    linear = linear_of(node)
    if linear is None:
        raise Declined(f"{node.name or type(node.op).__name__!r} has not 8 bits")
    return Bytes(node.inputs[0], linear)


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
        raise Declined("the weights have not 8 bits")
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


def _product(x: Bytes, w: Array, scales: Array, b: Array, y: Linear) -> list[Node]:
    """The constant inputs of a product: weights [M, ...], bias, multiplier and shift."""
    unit = scales * x.scale
    wide = w.reshape(len(w), -1).astype(np.int64)
    bias = np.rint(b.astype(np.float64) / unit) - x.zero * wide.sum(1)
    if np.any(np.abs(bias) + 255 * np.abs(wide).sum(1) >= 2.0**31):
        raise Declined("sums could leave 32 bits")
    values = (w, bias.astype(np.int32), *fixed_point(unit / y.scale))
    return [constant(value) for value in values]


def _constant_vector(node: Node) -> Array:
    value = widened(node)
    if value is None:
        raise Declined("the bias is computed at run time")
    return value


def _conv(node: Node, y: Linear, low: int, high: int) -> Node:
    op = node.op
    assert isinstance(op, Conv2D)
    if op.activation is not None or op.residual:
        raise Declined("it has a fused epilogue")
    x = _bytes(node.inputs[0])
    w, scales = _centred_weights(node.inputs[1], 0)
    b = _constant_vector(node.inputs[2])
    fixed = QuantizedConv2D(
        op.stride, op.pads, op.dilation, op.groups, x.zero, y.zero, low, high, y.dtype
    )
    if fits(w):
        return make(fixed, x.node, *_product(x, w.astype(np.int8), scales, b, y))
    if not pays(w, op.groups):
        raise Declined("the weights less their zero point do not fit 8 bits")

    def operands(some: Array, bias: Array, channels: Array) -> list[Node]:
        return _product(x, some, scales[channels], bias, y)

    # In the worst case the clipped part alone: both together must stay inside 32 bits.
    _product(x, w, scales, b, y)
    return wide_convolution(fixed, x.node, w, scales * x.scale, b, y.constants(), operands)


def _dense(node: Node, y: Linear, low: int, high: int) -> Node:
    op = node.op
    if isinstance(op, Dense):
        if op.activation is not None:
            raise Declined("it has a fused epilogue")
        w, scales = _weights(node.inputs[1], 0)
        b = _constant_vector(node.inputs[2])
    else:
        if node.inputs[1].type.rank != 2:
            raise Declined("it is no product with one matrix")
        w, scales = _weights(node.inputs[1], 1)
        w, b = np.ascontiguousarray(w.T), np.zeros(w.shape[1])
    x = _bytes(node.inputs[0])
    operands = _product(x, w, scales, b, y)
    return make(QuantizedDense(x.zero, y.zero, low, high, y.dtype), x.node, *operands)


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
        if node.inputs[1].type.rank != 2:
            raise Declined("it is no product with one matrix")
        w, scales = _weights(node.inputs[1], 1)
        w, b = np.ascontiguousarray(w.T), np.zeros(w.shape[1])
    # The step of the output means nothing here: there are neither multiplier nor shift.
    operands = _product(x, w, scales, b, Linear(float(scales.max() * x.scale), 0, DType.I8))[:2]
    fixed = (
        QuantizedConv2D(op.stride, op.pads, op.dilation, op.groups, x.zero, dtype=DType.I32)
        if isinstance(op, Conv2D)
        else QuantizedDense(x.zero, dtype=DType.I32)
    )
    wide = make(fixed, x.node, *operands, name=node.name)
    steps = (scales * x.scale).astype(np.float32)
    zeros = np.zeros(len(steps), np.int32)
    return make(DequantizeLinear(axis), wide, constant(steps), constant(zeros))


def _add(node: Node, y: Linear, low: int, high: int) -> Node:
    a, b = (_summand(source, node) for source in node.inputs)
    factors = a.scale / y.scale, b.scale / y.scale
    sum_multipliers(*factors)
    op = QuantizedAdd(*factors, a.zero, b.zero, y.zero, low, high, y.dtype)
    return make(op, a.node, b.node)


def _summand(source: Node, whole: Node) -> Bytes:
    found = _bytes(source)
    if found.node.constant is not None:
        raise Declined("an operand is a constant")
    if found.node.shape != whole.shape:
        raise Declined("an operand is broadcast")
    return found


def _mean(node: Node, y: Linear, low: int, high: int) -> Node:
    op, x = node.op, _bytes(node.inputs[0])
    shape: Sequence[int] | None = None
    if isinstance(op, Reduce):
        if op.kind != "mean" or op.axes != (2, 3) or node.inputs[0].type.rank != 4:
            raise Declined("it is no mean over an image")
        height, width = node.inputs[0].shape[2:]
        window, include = Window((height, width)), False
        shape = None if op.keepdims else node.shape
    else:
        assert isinstance(op, AveragePool2D)
        window, include = op.window, op.include_pad
    fixed = QuantizedAveragePool2D(
        window, x.scale / y.scale, include, x.zero, y.zero, low, high, y.dtype
    )
    result = make(fixed, x.node)
    return result if shape is None else make(Reshape(tuple(shape)), result)


def _movement(node: Node, y: Linear, low: int, high: int) -> Node:
    if (low, high) != limits(y.dtype):
        raise Declined("a bound stands behind it")
    op, sources = node.op, [_bytes(source) for source in node.inputs]
    if isinstance(op, Concat):
        return make(op, *(converted(x, y) for x in sources))
    (x,) = sources
    if isinstance(op, Pad) and op.mode == "constant":
        op = replace(op, value=float(x.linear.quantize(op.value)))
    if isinstance(op, Resize) and (op.mode == "cubic" or op.extrapolation):
        raise Declined("interpolation leaves the range")
    return converted(Bytes(make(op, x.node), x.linear), y)


_CORES: dict[type[Op] | tuple[type[Op], ...], Lower] = {
    Conv2D: _conv,
    (Dense, MatMul): _dense,
    Add: _add,
    (AveragePool2D, Reduce): _mean,
    (*MOVEMENT, Resize): _movement,
}


def reasons(budget: Budget) -> Mapping[str, str]:
    """Why tensors stayed in float, by name, from a traced budget."""
    return {event.node: event.reason for event in budget.events if not event.fired}
