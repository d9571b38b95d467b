"""HannWindow, HammingWindow and BlackmanWindow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx

from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Op
from mdlc.compiler.ops.constant import constant

# Factors of the cosines of 0, 1 and 2 turns.
_TERMS = {
    "HannWindow": (0.5, -0.5, 0.0),
    "HammingWindow": (25 / 46, -21 / 46, 0.0),
    "BlackmanWindow": (0.42, -0.5, 0.08),
}
_LONGEST = 2**24


@dataclass(frozen=True)
class Window(Op):
    """Imported as a constant; its length must be known.

    Sources: ONNX specification, these operators.
    """

    onnx: ClassVar[tuple[str, ...]] = tuple(_TERMS)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        length = int(n.const(0).reshape(-1)[0])
        if not 0 < length <= _LONGEST:
            raise n.error(f"a window of {length} values makes no sense")
        turns = length if n.attr("periodic", 1) else max(1, length - 1)
        angle = 2 * np.pi * np.arange(length) / turns
        value = sum(a * np.cos(k * angle) for k, a in enumerate(_TERMS[n.op_type]))
        kind = n.attr("output_datatype", onnx.TensorProto.FLOAT)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
        return constant(np.asarray(value).astype(dtype), n.outputs[0])
