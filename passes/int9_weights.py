"""Convolutions of 8-bit integers whose weights, less their zero point, need a ninth bit.

Weights of uint8 with a zero point off the middle (TensorFlow's first quantised models) leave int8
at a few places of a few filters. All channels are computed with those weights clipped. For the
channels that are wrong then, the clipped part and what was cut off are summed up again, in 32
bits each, added, rounded and put in place.

All sums are exact; as floats they are rounded once more than an integer operator's, so that a
result may be one step off where it lies on a half.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from mdlc.compiler.ir import Node, make
from mdlc.compiler.ops.add import Add
from mdlc.compiler.ops.clip import Clip
from mdlc.compiler.ops.concat import Concat
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.dequantize_linear import DequantizeLinear
from mdlc.compiler.ops.quantize_linear import QuantizeLinear
from mdlc.compiler.ops.quantized_conv2d import QuantizedConv2D
from mdlc.compiler.ops.slice import Slice
from mdlc.compiler.types import Array, DType

# Computing channels twice pays while they are no more than this share of all.
LARGEST_SHARE = 1 / 8
# Weights and bias as the constant inputs of a convolution: weights, bias, multiplier, shift.
Operands = Callable[[Array, Array, Array], Sequence[Node]]


def fits(w: Array) -> bool:
    """Whether weights less their zero point are int8."""
    return bool(w.min(initial=0) >= -128 and w.max(initial=0) <= 127)


def wide_channels(w: Array) -> list[int]:
    """The output channels of weights [M, ...] that are not int8."""
    outside = (w < -128) | (w > 127)
    return np.flatnonzero(outside.reshape(len(w), -1).any(axis=1)).tolist()


def pays(w: Array, groups: int) -> bool:
    """Whether `int9_convolution` can be used for weights [M, C/groups, kH, kW], and should."""
    depthwise = groups == len(w) and w.shape[1] == 1
    cut = w - np.clip(w, -128, 127)
    few = len(wide_channels(w)) <= LARGEST_SHARE * len(w)
    return few and fits(cut) and (groups == 1 or depthwise)


def int9_convolution(
    op: QuantizedConv2D,
    x: Node,
    w: Array,
    steps: Array,
    b: Array,
    y: tuple[Node, Node],
    operands: Operands,
) -> Node:
    """The convolution of x with weights of nine bits.

    Args:
        op: the convolution as it would be with weights of int8.
        x: [N, C, H, W] i8 or u8.
        w: [M, C/groups, kH, kW], whole numbers; `pays` says which.
        steps: [M], what an accumulator's unit stands for.
        b: [M], the bias as a real number.
        y: scale and zero point of the output, as QuantizeLinear takes them.
        operands: makes constant inputs of weights (int8), bias and numbers of the channels.
    """
    wide = wide_channels(w)
    clipped = np.clip(w, -128, 127)
    whole = make(op, x, *operands(clipped.astype(np.int8), b, np.arange(len(w))))
    halves = [clipped[wide], (w - clipped)[wide]]
    if op.groups == 1:
        source = x
    else:
        source, halves = _channels(x, wide), [_diagonal(half) for half in halves]
    both = np.concatenate(halves).astype(np.int8)
    bias = np.concatenate([b[wide], np.zeros(len(wide))])
    wanted = operands(both, bias, np.array(wide + wide))[:2]
    sums = replace(op, groups=1, y_zero=0, low=-128, high=127, dtype=DType.I32)
    scale = constant(np.tile(steps[wide], 2).astype(np.float32))
    zero = constant(np.zeros(2 * len(wide), np.int32))
    found = make(DequantizeLinear(1), make(sums, source, *wanted), scale, zero)
    parts = [make(Slice.along(found.shape, 1, first, len(wide)), found) for first in (0, len(wide))]
    total = make(Add(), *parts)
    scale_value, zero_value = (node.constant for node in y)
    assert scale_value is not None
    assert zero_value is not None
    low, high = (float(scale_value) * (bound - int(zero_value)) for bound in (op.low, op.high))
    right = make(QuantizeLinear(), make(Clip(low, high), total), *y)
    return _replaced(whole, right, wide)


def _diagonal(w: Array) -> Array:
    """Filters of one channel each, [M, 1, kH, kW], as filters of M channels."""
    found = np.zeros((len(w), *w.shape[:1], *w.shape[2:]), w.dtype)
    found[np.arange(len(w)), np.arange(len(w))] = w[:, 0]
    return found


def _channels(x: Node, numbers: Sequence[int]) -> Node:
    """Some channels of a tensor [N, C, H, W]."""
    taken = [make(Slice.along(x.shape, 1, number, 1), x) for number in numbers]
    return taken[0] if len(taken) == 1 else make(Concat(1), *taken)


def _replaced(whole: Node, right: Node, numbers: Sequence[int]) -> Node:
    """`whole` with the channels `numbers` in the place of its own."""
    parts, at = [], 0
    for index, number in enumerate(numbers):
        if number > at:
            parts.append(make(Slice.along(whole.shape, 1, at, number - at), whole))
        parts.append(_channels(right, [index]) if len(numbers) > 1 else right)
        at = number + 1
    if at < whole.shape[1]:
        parts.append(make(Slice.along(whole.shape, 1, at, whole.shape[1] - at), whole))
    return make(Concat(1), *parts)
