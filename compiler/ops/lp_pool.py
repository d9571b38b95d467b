"""LpPool and GlobalLpPool: norms of windows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Op
from mdlc.compiler.ops.abs import Abs
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.mul import Mul
from mdlc.compiler.ops.pow import Pow
from mdlc.compiler.ops.reduce import Reduce
from mdlc.compiler.ops.sqrt import Sqrt
from mdlc.compiler.window import resolve_auto_pad


@dataclass(frozen=True)
class LpPool(Op):
    """Imported as powers, sums of windows (a depthwise convolution with ones), and a root.

    Sources: ONNX specification, operators LpPool and GlobalLpPool.
    """

    onnx: ClassVar[tuple[str, ...]] = ("LpPool", "GlobalLpPool")

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x, p = n.input(0), n.attr("p", 2)
        kind = x.type.dtype.numpy
        power = constant(np.array(p, kind))
        if p == 2:
            powers = n.make(Mul(), x, x)
        else:
            powers = n.make(Abs(), x)
            powers = powers if p == 1 else n.make(Pow(), powers, power)
        if n.op_type == "GlobalLpPool":
            sums = n.make(Reduce("sum", tuple(range(2, len(x.shape)))), powers)
        else:
            sums = cls._sums(n, powers)
        if p == 1:
            return sums
        root = constant(np.array(1 / p, kind))
        return n.make(Sqrt(), sums) if p == 2 else n.make(Pow(), sums, root)

    @staticmethod
    def _sums(n: OnnxNode, x: Node) -> Node:
        kernel = n.attr("kernel_shape", ())
        rank, channels = len(kernel), x.shape[1]
        if len(x.shape) != rank + 2:
            raise n.error(f"a window of {list(kernel)} does not fit {x.type}")
        strides, dilations = n.attr("strides", (1,) * rank), n.attr("dilations", (1,) * rank)
        pads = list(resolve_auto_pad(n, x.shape[2:], kernel, strides, dilations))
        if n.attr("ceil_mode", 0):
            for a, size in enumerate(x.shape[2:]):
                extent = (kernel[a] - 1) * dilations[a] + 1
                free = size + pads[a] + pads[rank + a] - extent
                count = free // strides[a] + 1
                if free % strides[a] and count * strides[a] < size + pads[a]:
                    pads[rank + a] += strides[a] - free % strides[a]
        ones = constant(np.ones((channels, 1, *kernel), x.type.dtype.numpy))
        attributes = {
            "kernel_shape": kernel,
            "strides": strides,
            "dilations": dilations,
            "pads": pads,
            "group": channels,
        }
        y = Conv2D.from_onnx(replace(n, op_type="Conv", inputs=[x, ones], attributes=attributes))
        assert isinstance(y, Node)
        return y
