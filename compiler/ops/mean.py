"""Mean: of any number of inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Op
from mdlc.compiler.ops.add import Add
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.div import Div


@dataclass(frozen=True)
class Mean(Op):
    """Imported as sums divided by their number. Source: ONNX specification, operator Mean."""

    onnx: ClassVar[tuple[str, ...]] = ("Mean",)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        total = Add.from_onnx(n)
        count = len(n.inputs)
        if count == 1:
            return total
        return n.make(Div(), total, constant(np.array(count, total.type.dtype.numpy)))
