"""EyeLike: ones on a diagonal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx

from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Op
from mdlc.compiler.ops.constant import constant


@dataclass(frozen=True)
class EyeLike(Op):
    """Imported as a constant. Source: ONNX specification, operator EyeLike."""

    onnx: ClassVar[tuple[str, ...]] = ("EyeLike",)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x = n.input(0)
        if len(x.shape) != 2:
            raise n.error(f"{x.type} is not a matrix")
        given = n.attr("dtype")
        kind = x.type.dtype.numpy if given is None else onnx.helper.tensor_dtype_to_np_dtype(given)
        return constant(np.eye(*x.shape, k=int(n.attr("k", 0)), dtype=kind), n.outputs[0])
