"""Add: a + b with broadcasting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mdlc.compiler.expr import Expr
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Elementwise
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Add(Elementwise):
    """y = a + b. Source: ONNX specification, operator Add."""

    onnx: ClassVar[tuple[str, ...]] = ("Add", "Sum")
    arity: ClassVar[int] = 2
    commutative: ClassVar[bool] = True

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        total = n.input(0)
        for index in range(1, len(n.inputs)):
            total = n.make(cls(), total, n.input(index))
        return total

    def expr(self, *x: Expr) -> Expr:
        return x[0] + x[1]

    def reference(self, *inputs: Array) -> Array:
        result: Array = inputs[0] + inputs[1]
        return result
