"""Identity and Dropout: nothing at inference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Op
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.expand import Expand
from mdlc.compiler.types import TensorType


@dataclass(frozen=True)
class Identity(Op):
    """Imported as its input. Source: ONNX specification, Identity and Dropout."""

    onnx: ClassVar[tuple[str, ...]] = ("Identity", "Dropout")

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Sequence[Node]:
        x = n.input(0)
        training = n.optional_const(2) if n.op_type == "Dropout" and n.opset >= 12 else None
        if training is not None and training.any():
            raise n.error("training mode is not supported", "export the model in evaluation mode")
        if len(n.outputs) > 1:  # Dropout's mask: nothing is dropped
            kind = np.dtype(np.bool_) if n.opset >= 10 else x.type.dtype.numpy
            return x, n.make(Expand(x.shape), constant(np.array(1, kind)), output=1)
        return (x,)

    def moves(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return (0,)

    def is_identity(self, x: TensorType) -> bool:
        return True
