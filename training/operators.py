"""mdlc's operators in PyTorch, on batches of any length: what training computes with.

The first axis of a graph whose inputs have batch 1 becomes the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.expr import Expr, input_
from mdlc.compiler.ir import Node
from mdlc.compiler.op import Elementwise, Op
from mdlc.compiler.ops.average_pool2d import AveragePool2D
from mdlc.compiler.ops.cast import Cast
from mdlc.compiler.ops.channel_shuffle import ChannelShuffle
from mdlc.compiler.ops.concat import Concat
from mdlc.compiler.ops.gather import Gather
from mdlc.compiler.ops.matmul import MatMul
from mdlc.compiler.ops.max_pool2d import MaxPool2D
from mdlc.compiler.ops.pad import Pad
from mdlc.compiler.ops.reduce import Reduce
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.resize import Resize
from mdlc.compiler.ops.slice import Slice
from mdlc.compiler.ops.softmax import Softmax
from mdlc.compiler.ops.transpose import Transpose
from mdlc.compiler.window import Window

Tensor = Any  # torch.Tensor; torch is not there when types are checked

_FORMULAS: dict[str, Callable[..., Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "min": torch.minimum,
    "max": torch.maximum,
    "neg": torch.neg,
    "abs": torch.abs,
    "sqrt": torch.sqrt,
    "fma": lambda a, b, c: a * b + c,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round": torch.round,
    "lt": torch.lt,
    "le": torch.le,
    "eq": torch.eq,
    "and": torch.logical_and,
    "or": torch.logical_or,
    "not": torch.logical_not,
    "select": torch.where,
    "exp": torch.exp,
    "log": torch.log,
    "tanh": torch.tanh,
    "erf": torch.erf,
    "sigmoid": torch.sigmoid,
    "pow": torch.pow,
    "is_nan": torch.isnan,
}
_BOUNDS: dict[str, Callable[..., Tensor]] = {"min": torch.clamp_max, "max": torch.clamp_min}


def formula(op: Elementwise, *x: Tensor) -> Tensor:
    """An element-wise operator, by its formula."""

    def value(expr: Expr) -> Tensor:
        if expr.kind == "input":
            return x[int(expr.value)]
        if expr.kind == "const":
            return torch.as_tensor(float(expr.value), dtype=x[0].dtype, device=x[0].device)
        if expr.kind in _BOUNDS and expr.args[1].kind == "const":  # a faster gradient
            return _BOUNDS[expr.kind](value(expr.args[0]), float(expr.args[1].value))
        return _FORMULAS[expr.kind](*(value(arg) for arg in expr.args))

    expr = op.expr(*(input_(i) for i in range(op.arity)))
    return value(expr)


def _pad_window(x: Tensor, window: Window, fill: float) -> Tensor:
    """The input of a sliding window, padded (or cut) to just what the window covers."""
    height, width = x.shape[2:]
    rows, columns = window.output_size((height, width))
    top, left = window.pads[:2]
    (eh, ew), (sh, sw) = window.extent, window.stride
    bottom = (rows - 1) * sh + eh - height - top
    right = (columns - 1) * sw + ew - width - left
    return F.pad(x, (left, right, top, bottom), value=fill)


def convolve(op: Any, x: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """The linear part of a Conv2D."""
    padded = _pad_window(x, op.window(weights.shape[2:]), 0.0)
    return F.conv2d(padded, weights, bias, op.stride, 0, op.dilation, op.groups)


def transposed(op: Any, x: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """The linear part of a ConvTranspose2D."""
    whole = F.conv_transpose2d(
        x, weights, bias, op.stride, 0, op.output_padding, op.groups, op.dilation
    )
    top, left, bottom, right = op.pads
    return whole[:, :, top : whole.shape[2] - bottom, left : whole.shape[3] - right]


def _max_pool(node: Node, op: MaxPool2D, x: Tensor) -> Tensor:
    window = op.window
    padded = _pad_window(x, window, float("-inf"))
    return F.max_pool2d(padded, window.kernel, window.stride, 0, window.dilation)


def _average_pool(node: Node, op: AveragePool2D, x: Tensor) -> Tensor:
    window = op.window
    if window.dilation != (1, 1):
        raise MdlcError("training has no dilated average pooling", node=f"node {node.name!r}")
    size = window.kernel[0] * window.kernel[1]
    sums = F.avg_pool2d(_pad_window(x, window, 0.0), window.kernel, window.stride) * size
    counts = torch.as_tensor(op.counts(x.shape[2:]), dtype=x.dtype, device=x.device)
    return sums / counts


def _reduce(node: Node, op: Reduce, x: Tensor) -> Tensor:
    if 0 in op.axes:
        raise MdlcError("an operator mixes the samples of a batch", node=f"node {node.name!r}")
    kinds: dict[str, Callable[..., Tensor]] = {
        "mean": torch.mean,
        "sum": torch.sum,
        "max": torch.amax,
        "min": torch.amin,
    }
    if op.kind not in kinds:
        raise MdlcError(f"training has no reduction {op.kind!r}", node=f"node {node.name!r}")
    return kinds[op.kind](x, dim=op.axes, keepdim=op.keepdims)


def _reshape(node: Node, op: Reshape, x: Tensor) -> Tensor:
    if node.shape[:1] != (1,):
        raise MdlcError("a reshape takes the batch apart", node=f"node {node.name!r}")
    return x.reshape(x.shape[0], *node.shape[1:])


def _transpose(node: Node, op: Transpose, x: Tensor) -> Tensor:
    if op.perm[0] != 0:
        raise MdlcError("a transpose moves the batch", node=f"node {node.name!r}")
    return x.permute(*op.perm)


def _slice(node: Node, op: Slice, x: Tensor) -> Tensor:
    for axis, (start, length, step) in enumerate(zip(op.starts, op.lengths, op.steps, strict=True)):
        if axis == 0:
            continue
        if (start, length, step) != (0, x.shape[axis], 1):
            index = torch.as_tensor(np.arange(length) * step + start, device=x.device)
            x = x.index_select(axis, index)
    return x


def _pad(node: Node, op: Pad, x: Tensor) -> Tensor:
    if op.mode != "constant" or op.begins[0] or op.ends[0]:
        raise MdlcError(f"training has no padding {op.mode!r}", node=f"node {node.name!r}")
    pairs = [n for b, e in zip(op.begins[::-1], op.ends[::-1], strict=True) for n in (b, e)]
    return F.pad(x, pairs, value=float(op.value))


def _resize(node: Node, op: Resize, x: Tensor) -> Tensor:
    for axis in (2, 3):
        indices, weights = op.taps(axis, x.shape[axis])
        shape = [1] * x.dim()
        shape[axis] = -1
        total = None
        for tap in range(indices.shape[1]):
            taken = x.index_select(axis, torch.as_tensor(indices[:, tap].astype(np.int64)))
            part = taken * torch.as_tensor(weights[:, tap], dtype=x.dtype).reshape(shape)
            total = part if total is None else total + part
        x = total
    return x


def _softmax(node: Node, op: Softmax, x: Tensor) -> Tensor:
    return F.log_softmax(x, op.axis) if op.log else F.softmax(x, op.axis)


def _shuffle(node: Node, op: ChannelShuffle, x: Tensor) -> Tensor:
    return x.index_select(1, torch.as_tensor(op.order(x.shape[1]), device=x.device))


def _gather(node: Node, op: Gather, x: Tensor, index: Tensor) -> Tensor:
    if op.axis == 0 or index.dim() != 1:
        raise MdlcError("training has no such Gather", node=f"node {node.name!r}")
    return x.index_select(op.axis, index % x.shape[op.axis])


def _concat(node: Node, op: Concat, *x: Tensor) -> Tensor:
    return torch.cat(x, op.axis)


def _matmul(node: Node, op: MatMul, a: Tensor, b: Tensor) -> Tensor:
    return a @ b


def _cast(node: Node, op: Cast, x: Tensor) -> Tensor:
    return x.to(getattr(torch, str(op.dtype.numpy)))


_OPERATORS: dict[type[Op], Callable[..., Tensor]] = {
    AveragePool2D: _average_pool,
    Cast: _cast,
    ChannelShuffle: _shuffle,
    Concat: _concat,
    Gather: _gather,
    MatMul: _matmul,
    MaxPool2D: _max_pool,
    Pad: _pad,
    Reduce: _reduce,
    Reshape: _reshape,
    Resize: _resize,
    Slice: _slice,
    Softmax: _softmax,
    Transpose: _transpose,
}


def compute(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    """The output of a node without weights of its own.

    Raises:
        MdlcError: training does not have the operator.
    """
    if isinstance(node.op, Elementwise):
        return formula(node.op, *inputs)
    found = _OPERATORS.get(type(node.op))
    if found is None:
        raise MdlcError(
            f"training has no operator {type(node.op).__name__}", node=f"node {node.name!r}"
        )
    return found(node, node.op, *inputs)
