"""DepthToSpace: blocks of channels become blocks of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import LayoutRule, OnnxForm, Op, Sample, random_array
from mdlc.compiler.types import Array, TensorType


@dataclass(frozen=True)
class DepthToSpace(Op):
    """[N, C, H, W] to [N, C / b^2, H * b, W * b]; mode "DCR" or "CRD" is the channels' order.

    Source: ONNX specification, operator DepthToSpace.
    """

    block: int
    mode: str = "DCR"

    onnx: ClassVar[tuple[str, ...]] = ("DepthToSpace",)
    layout_rule: ClassVar[LayoutRule] = LayoutRule.FOLLOWS

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        return n.make(cls(n.attr("blocksize"), n.attr("mode", "DCR")), n.input(0))

    def infer(self, *inputs: TensorType) -> TensorType:
        x = inputs[0]
        if x.rank != 4 or self.block < 1 or x.shape[1] % self.block**2:
            raise MdlcError(f"blocks of {self.block} do not fit the channels of {x}")
        if self.mode not in ("DCR", "CRD"):
            raise MdlcError(f"mode {self.mode!r} is neither DCR nor CRD")
        n, c, h, w = x.shape
        return TensorType((n, c // self.block**2, h * self.block, w * self.block), x.dtype)

    def reference(self, *inputs: Array) -> Array:
        n, c, h, w = inputs[0].shape
        b, rest = self.block, c // self.block**2
        if self.mode == "DCR":
            y = inputs[0].reshape(n, b, b, rest, h, w).transpose(0, 3, 4, 1, 5, 2)
        else:
            y = inputs[0].reshape(n, rest, b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
        return np.ascontiguousarray(y).reshape(n, rest, h * b, w * b)

    def moves(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return (0,)

    def is_identity(self, x: TensorType) -> bool:
        return self.block == 1

    def to_onnx(self) -> OnnxForm:
        return "DepthToSpace", {"blocksize": self.block, "mode": self.mode}, ()

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = random_array(1, 2, 12, 3, 5)
        return (Sample(cls(2), (x,), label="dcr"), Sample(cls(2, "CRD"), (x,), label="crd"))
