"""DynamicQuantizeLinear: floats to 8-bit integers of the range that they have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Op
from mdlc.compiler.ops.add import Add
from mdlc.compiler.ops.cast import Cast
from mdlc.compiler.ops.clip import Clip
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.div import Div
from mdlc.compiler.ops.equal import Equal
from mdlc.compiler.ops.max import Max
from mdlc.compiler.ops.min import Min
from mdlc.compiler.ops.neg import Neg
from mdlc.compiler.ops.reduce import Reduce
from mdlc.compiler.ops.round import Round
from mdlc.compiler.ops.sub import Sub
from mdlc.compiler.ops.where import Where
from mdlc.compiler.types import DType


@dataclass(frozen=True)
class DynamicQuantizeLinear(Op):
    """Imported as the reductions that find the range, and element-wise operators.

    Outputs: y (u8), its scale and zero point. Of zeros alone the scale is 1, as in ONNX Runtime.

    Source: ONNX specification, operator DynamicQuantizeLinear.
    """

    onnx: ClassVar[tuple[str, ...]] = ("DynamicQuantizeLinear",)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Sequence[Node]:
        x = n.input(0)
        axes, zero = tuple(range(x.type.rank)), constant(np.zeros((), np.float32))
        highest = lowest = x
        if axes:
            highest = n.make(Reduce("max", axes, False), x)
            lowest = n.make(Reduce("min", axes, False), x)
        highest, lowest = n.make(Max(), highest, zero), n.make(Min(), lowest, zero)
        steps = constant(np.array(255, np.float32))
        scale = n.make(Div(), n.make(Sub(), highest, lowest), steps)
        one = constant(np.ones((), np.float32))
        scale = n.make(Where(), n.make(Equal(), scale, zero), one, scale, output=1)
        offset = n.make(Round(), n.make(Neg(), n.make(Div(), lowest, scale)))
        offset = n.make(Clip(0.0, 255.0), offset)
        zero_point = n.make(Cast(DType.U8), offset, output=2)
        # QuantizeLinear takes constant scales; this is what it computes.
        rounded = n.make(Add(), n.make(Round(), n.make(Div(), x, scale)), offset)
        return n.make(Cast(DType.U8), n.make(Clip(0.0, 255.0), rounded)), scale, zero_point
