"""Sliding windows, shared by convolution and pooling."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.types import Array, TensorType

if TYPE_CHECKING:
    from mdlc.compiler.ir import Node
    from mdlc.compiler.onnx_node import OnnxNode
    from mdlc.compiler.op import Op


@dataclass(frozen=True)
class Window:
    """A window moved over the two last axes of a tensor; pairs are (vertical, horizontal).

    Attributes:
        pads: (top, left, bottom, right).
        ceil_mode: whether a last window that starts inside the input or its leading padding,
            but does not end inside, counts (ONNX pooling's ceil_mode).
    """

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    ceil_mode: bool = False

    @property
    def extent(self) -> tuple[int, int]:
        """Height and width that one window spans, dilation included."""
        (kh, kw), (dh, dw) = self.kernel, self.dilation
        return (kh - 1) * dh + 1, (kw - 1) * dw + 1

    @property
    def is_one(self) -> bool:
        """Whether every window is one element, in its place."""
        return (self.kernel, self.stride, self.pads) == ((1, 1), (1, 1), (0, 0, 0, 0))

    def output_size(self, size: Sequence[int]) -> tuple[int, int]:
        """Windows along each axis of an input of [H, W]; MdlcError where none fits."""
        result = []
        for axis in range(2):
            padded = size[axis] + self.pads[axis] + self.pads[axis + 2]
            free = padded - self.extent[axis]
            if free < 0:
                raise MdlcError(
                    f"a window of {self.extent[0]}x{self.extent[1]} does not fit an input of "
                    f"{size[0]}x{size[1]} padded by {list(self.pads)}"
                )
            step = self.stride[axis]
            count = free // step + 1
            # A window that would start in the trailing padding is dropped (ONNX, since opset 1).
            if self.ceil_mode and free % step and count * step < size[axis] + self.pads[axis]:
                count += 1
            result.append(count)
        return result[0], result[1]

    def patches(self, x: Array, fill: float, shape: tuple[int, int] | None = None) -> Array:
        """Every window of x [N, C, H, W] as [N, C, OH, OW, kH, kW] (a view of a padded copy).

        Args:
            fill: what lies outside x.
            shape: OH and OW, where not the usual ones.
        """
        oh, ow = shape or self.output_size(x.shape[2:])
        reach = [
            (n - 1) * s + e for n, s, e in zip((oh, ow), self.stride, self.extent, strict=True)
        ]
        top, left = self.pads[:2]
        bottom = max(reach[0] - top - x.shape[2], 0)
        right = max(reach[1] - left - x.shape[3], 0)
        padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
        view = np.lib.stride_tricks.sliding_window_view(padded, self.extent, axis=(2, 3))
        (sh, sw), (dh, dw) = self.stride, self.dilation
        result: Array = view[:, :, ::sh, ::sw, ::dh, ::dw][:, :, :oh, :ow]
        return result


# Elements that are unfolded at a time, so that they stay in the second-level cache.
_UNFOLDED = 1 << 17


def filtered(patches: Array, weights: Array, groups: int) -> Array:
    """Filters over windows: matrix products of a few rows of windows at a time.

    Args:
        patches: [N, C, OH, OW, kH, kW], as `Window.patches` gives them.
        weights: [M, C / groups, kH, kW].

    Returns:
        [N, M, OH, OW].
    """
    n, channels, oh, ow, kh, kw = patches.shape
    filters, depth = weights.shape[0], weights.shape[1] * kh * kw
    dtype = np.result_type(patches, weights)
    total = np.empty((n, groups, filters // groups, oh, ow), dtype)
    if weights.shape[1] == 1:
        # Depthwise filters have no sum over channels, and matrix products of one column crawl.
        taps = weights.reshape(groups, filters // groups, 1, 1, kh, kw)
        count = max(1, _UNFOLDED // (4 * max(filters // groups * oh * ow, 1)))
        for image, first in itertools.product(range(n), range(0, groups, count)):
            some = slice(first, first + count)
            x, part = patches[image, some, None], total[image, some]
            part[...] = 0
            for i, j in itertools.product(range(kh), range(kw)):
                part += x[..., i, j] * taps[some, ..., i, j]
    else:
        matrix = np.ascontiguousarray(weights.reshape(groups, filters // groups, depth))
        rows = max(1, _UNFOLDED // max(channels * kh * kw * ow, 1))
        for image, top in itertools.product(range(n), range(0, oh, rows)):
            some = slice(top, top + rows)
            unfolded = patches[image, :, some].transpose(0, 3, 4, 1, 2)
            part = total[image, :, :, some]
            windows = unfolded.reshape(groups, depth, unfolded.shape[3] * ow)
            part[...] = (matrix @ windows).reshape(part.shape)
    return total.reshape(n, filters, oh, ow)


def resolve_auto_pad(
    n: OnnxNode,
    size: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[int, ...]:
    """Explicit pads (all begins, then all ends) of an ONNX node from `pads` or `auto_pad`."""
    mode = n.attr("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        pads = tuple(n.attr("pads", (0,) * (2 * len(kernel))))
        if len(pads) != 2 * len(kernel):
            raise n.error(f"pads {list(pads)} do not fit a kernel of rank {len(kernel)}")
        if min(pads, default=0) < 0:
            raise n.error(f"negative pads {list(pads)}", hint="use Slice to crop")
        return pads
    if mode == "VALID":
        return (0,) * (2 * len(kernel))
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise n.error(f"unknown auto_pad {mode!r}")
    begins, ends = [], []
    for length, k, s, d in zip(size, kernel, strides, dilations, strict=True):
        total = max((-(-length // s) - 1) * s + (k - 1) * d + 1 - length, 0)
        small, large = total // 2, total - total // 2
        begins.append(small if mode == "SAME_UPPER" else large)
        ends.append(large if mode == "SAME_UPPER" else small)
    return (*begins, *ends)


def import_pool(n: OnnxNode, make_op: Callable[[Window], Op]) -> Node:
    """The nodes of an ONNX pooling node, 1-D, 2-D or 3-D.

    A 3-D window is a 2-D one on every plane, then one along the depth: largest values and means
    of boxes are those of their planes' (all planes of a box have as many elements inside).
    """
    from mdlc.compiler.ir import make
    from mdlc.compiler.ops.reshape import Reshape

    x = n.input(0)
    kernel = tuple(n.attr("kernel_shape", ()))
    if len(x.shape) != len(kernel) + 2 or len(kernel) not in (1, 2, 3):
        raise n.error(f"a window of {list(kernel)} does not fit {x.type}",
                      hint="1-D, 2-D and 3-D pooling are supported")  # fmt: skip
    strides = n.attr("strides", (1,) * len(kernel))
    dilations = n.attr("dilations", (1,) * len(kernel))
    pads = resolve_auto_pad(n, x.shape[2:], kernel, strides, dilations)
    if len(kernel) == 3:
        batch, channels, depth, height, width = x.shape
        ceil_mode = bool(n.attr("ceil_mode", 0))
        planes = make(Reshape((batch, channels * depth, height, width)), x)
        window = Window(
            (kernel[1], kernel[2]),
            (strides[1], strides[2]),
            (pads[1], pads[2], pads[4], pads[5]),
            (dilations[1], dilations[2]),
            ceil_mode,
        )
        y = make(make_op(window), planes)
        height, width = y.shape[2:]
        window = Window(
            (kernel[0], 1), (strides[0], 1), (pads[0], 0, pads[3], 0), (dilations[0], 1), ceil_mode
        )
        y = make(make_op(window), make(Reshape((batch, channels, depth, height * width)), y))
        return n.make(Reshape((batch, channels, y.shape[2], height, width)), y)
    if len(kernel) == 1:
        x = n.make(Reshape((x.shape[0], x.shape[1], 1, x.shape[2])), x)
        kernel, strides, dilations = (1, *kernel), (1, *strides), (1, *dilations)
        pads = (0, pads[0], 0, pads[1])
    window = Window(
        (kernel[0], kernel[1]),
        (strides[0], strides[1]),
        (pads[0], pads[1], pads[2], pads[3]),
        (dilations[0], dilations[1]),
        bool(n.attr("ceil_mode", 0)),
    )
    y = n.make(make_op(window), x)
    if len(n.input(0).shape) == 4:
        return y
    return n.make(Reshape((y.shape[0], y.shape[1], y.shape[3])), y)


def infer_pool(window: Window, x: TensorType) -> TensorType:
    """The type of a pooled tensor; MdlcError where x is not [N, C, H, W] or too small."""
    if x.rank != 4:
        raise MdlcError(f"pooling needs a rank-4 input, not {x}")
    return TensorType((*x.shape[:2], *window.output_size(x.shape[2:])), x.dtype)


def pool_attributes(window: Window) -> dict[str, Any]:
    """A window as attributes of an ONNX pooling node."""
    return {
        "kernel_shape": window.kernel,
        "strides": window.stride,
        "pads": window.pads,
        "dilations": window.dilation,
        "ceil_mode": int(window.ceil_mode),
    }
