"""Lrn: local response normalisation across channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Cost, LayoutRule, OnnxForm, Op, Sample, random_array
from mdlc.compiler.types import Array, TensorType


@dataclass(frozen=True)
class Lrn(Op):
    """y = x / (bias + alpha / size * sum of squares of `size` channels around) ** beta.

    Source: ONNX specification, operator LRN.
    """

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    bias: float = 1.0

    onnx: ClassVar[tuple[str, ...]] = ("LRN",)
    layout_rule: ClassVar[LayoutRule] = LayoutRule.NATIVE

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        given = {key: n.attr(key, default) for key, default in
                 (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))}  # fmt: skip
        return n.make(cls(n.attr("size"), **given), n.input(0))

    def infer(self, *inputs: TensorType) -> TensorType:
        if inputs[0].rank != 4:
            raise MdlcError(f"LRN needs a rank-4 input, not {inputs[0]}")
        return TensorType(inputs[0].shape, inputs[0].dtype)

    @property
    def before(self) -> int:
        """Channels of the window before the one computed."""
        return (self.size - 1) // 2

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0]
        channels = x.shape[1]
        total = np.zeros(x.shape, np.float64)
        squares = x.astype(np.float64) ** 2
        for c in range(channels):
            first = max(0, c - self.before)
            total[:, c] = squares[:, first : min(channels, c - self.before + self.size)].sum(1)
        return (x / (self.bias + self.alpha / self.size * total) ** self.beta).astype(x.dtype)

    def cost(self, inputs: Sequence[TensorType], output: TensorType) -> Cost:
        return Cost(output.size * (self.size + 2), inputs[0].nbytes + output.nbytes)

    def to_onnx(self) -> OnnxForm:
        attributes = {
            "size": self.size,
            "alpha": self.alpha,
            "beta": self.beta,
            "bias": self.bias,
        }
        return "LRN", attributes, ()

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = random_array(1, 2, 9, 4, 5, low=-9.0, high=9.0)
        return (
            Sample(cls(5, 0.1, 0.75, 1.0), (x,), label="five"),
            Sample(cls(3, 0.2, 0.5, 2.0), (x,), label="three"),
        )
