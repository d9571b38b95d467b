"""Silu: x * sigmoid(x)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Elementwise
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.mul import Mul
from mdlc.compiler.ops.sigmoid import Sigmoid
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Silu(Elementwise):
    """y = x * sigmoid(x). Source: ONNX specification, operator Swish."""

    onnx: ClassVar[tuple[str, ...]] = ("Swish",)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x, alpha = n.input(0), n.attr("alpha", 1.0)
        if alpha == 1:
            return n.make(cls(), x)
        scaled = n.make(Mul(), x, constant(np.array(alpha, x.type.dtype.numpy)))
        return n.make(Mul(), x, n.make(Sigmoid(), scaled))

    def expr(self, *x: Expr) -> Expr:
        return x[0] * call("sigmoid", x[0])

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0]
        return np.asarray(x / (1 + np.exp(-x.astype(np.float64))), x.dtype)

    def to_onnx(self) -> None:
        # ONNX has Swish from opset 24 on; the derived tests use opset 20.
        return None
