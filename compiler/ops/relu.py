"""Relu: max(x, 0)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from mdlc.compiler.expr import Expr, maximum
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Elementwise, Sample, unary_sample
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Relu(Elementwise):
    """y = max(x, 0). Source: ONNX specification, operator Relu."""

    onnx: ClassVar[tuple[str, ...]] = ("Relu",)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        return n.make(cls(), n.input(0))

    def expr(self, *x: Expr) -> Expr:
        return maximum(x[0], 0)

    def reference(self, *inputs: Array) -> Array:
        return np.maximum(inputs[0], inputs[0].dtype.type(0))

    def to_onnx(self) -> tuple[str, dict[str, Any]]:
        return "Relu", {}

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        return (unary_sample(cls()),)
