"""Det: determinants of the matrices in the last two axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Cost, OnnxForm, Op, Sample, random_array
from mdlc.compiler.types import Array, DType, TensorType


@dataclass(frozen=True)
class Det(Op):
    """y[...] = det(x[..., :, :]). Source: ONNX specification, operator Det."""

    onnx: ClassVar[tuple[str, ...]] = ("Det",)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        return n.make(cls(), n.input(0))

    def infer(self, *inputs: TensorType) -> TensorType:
        x = inputs[0]
        square = x.rank >= 2 and x.shape[-1] == x.shape[-2]
        if not square or x.dtype not in (DType.F32, DType.F64):
            raise MdlcError(f"{x} is not of square matrices of floats")
        return TensorType(x.shape[:-2], x.dtype)

    def reference(self, *inputs: Array) -> Array:
        return np.asarray(np.linalg.det(inputs[0].astype(np.float64)), inputs[0].dtype)

    def follows(self, inputs: Sequence[TensorType], index: int, axis: int) -> int | None:
        return axis if axis < inputs[0].rank - 2 else None

    def cost(self, inputs: Sequence[TensorType], output: TensorType) -> Cost:
        return Cost(inputs[0].size * inputs[0].shape[-1] // 3, inputs[0].nbytes + output.nbytes)

    def to_onnx(self) -> OnnxForm:
        return "Det", {}, ()

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        swapped = np.array([[[0, 2], [3, 1]], [[1, 2], [2, 4]]], np.float32)
        return (
            Sample(cls(), (random_array(1, 2, 3, 5, 5),), label="batch"),
            Sample(cls(), (random_array(2, 4, 4),), label="one"),
            Sample(cls(), (swapped,), label="pivot"),
            Sample(cls(), (swapped[:1, :1, :1],), label="number"),
        )
