"""SpaceToDepth: blocks of pixels become channels."""

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
class SpaceToDepth(Op):
    """[N, C, H, W] to [N, C * b^2, H / b, W / b]; mode as in DepthToSpace.

    Source: ONNX specification, operator SpaceToDepth.
    """

    block: int
    mode: str = "DCR"

    onnx: ClassVar[tuple[str, ...]] = ("SpaceToDepth",)
    layout_rule: ClassVar[LayoutRule] = LayoutRule.FOLLOWS

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        return n.make(cls(n.attr("blocksize"), n.attr("mode", "DCR")), n.input(0))

    def infer(self, *inputs: TensorType) -> TensorType:
        x = inputs[0]
        b = self.block
        if x.rank != 4 or b < 1 or x.shape[2] % b or x.shape[3] % b:
            raise MdlcError(f"blocks of {b} do not fit the pixels of {x}")
        if self.mode not in ("DCR", "CRD"):
            raise MdlcError(f"mode {self.mode!r} is neither DCR nor CRD")
        n, c, h, w = x.shape
        return TensorType((n, c * b * b, h // b, w // b), x.dtype)

    def reference(self, *inputs: Array) -> Array:
        n, c, h, w = inputs[0].shape
        b = self.block
        axes = (0, 3, 5, 1, 2, 4) if self.mode == "DCR" else (0, 1, 3, 5, 2, 4)
        y = inputs[0].reshape(n, c, h // b, b, w // b, b).transpose(axes)
        return np.ascontiguousarray(y).reshape(n, c * b * b, h // b, w // b)

    def moves(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return (0,)

    def is_identity(self, x: TensorType) -> bool:
        return self.block == 1

    def to_onnx(self) -> OnnxForm | None:
        # The mode came with opset 26; the derived tests use opset 20.
        return ("SpaceToDepth", {"blocksize": self.block}, ()) if self.mode == "DCR" else None

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = random_array(1, 2, 3, 4, 6)
        return (Sample(cls(2), (x,), label="dcr"), Sample(cls(2, "CRD"), (x,), label="crd"))
