"""MatMul: batched matrix product of two run-time tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Cost, OnnxForm, Op, Sample, broadcast_shapes, random_array
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.types import Array, TensorType
from mdlc.compiler.values import Values


@dataclass(frozen=True)
class MatMul(Op):
    """y = a b over the two last axes, the others broadcast; both of rank 2 or more.

    Source: ONNX specification, operator MatMul (numpy.matmul).
    """

    onnx: ClassVar[tuple[str, ...]] = ("MatMul",)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        from mdlc.compiler.ops.dense import Dense
        from mdlc.compiler.ops.reshape import Reshape

        a, b = n.input(0), n.input(1)
        weights = b.constant
        if weights is not None and weights.ndim == 2 and len(a.shape) >= 1 and a.constant is None:
            if a.shape[-1] != weights.shape[0]:
                raise n.error(f"{a.type} does not multiply {b.type}")
            bias = np.zeros(weights.shape[1], weights.dtype)
            return n.make(Dense(), a, constant(np.ascontiguousarray(weights.T)), constant(bias))
        shape = None
        if len(a.shape) == 1:
            a, shape = n.make(Reshape((1, a.shape[0])), a), "row"
        if len(b.shape) == 1:
            b, shape = n.make(Reshape((b.shape[0], 1)), b), "scalar" if shape else "column"
        y = n.make(cls(), a, b)
        if shape is None:
            return y
        kept = {"row": (*y.shape[:-2], y.shape[-1]), "column": y.shape[:-1], "scalar": ()}[shape]
        return n.make(Reshape(kept), y)

    def infer(self, *inputs: TensorType) -> TensorType:
        a, b = inputs
        if a.rank < 2 or b.rank < 2 or a.shape[-1] != b.shape[-2]:
            raise MdlcError(f"{a} does not multiply {b}")
        batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
        return TensorType((*batch, a.shape[-2], b.shape[-1]), a.dtype)

    def reference(self, *inputs: Array) -> Array:
        result: Array = inputs[0] @ inputs[1]
        return result.astype(inputs[0].dtype, copy=False)  # numpy's product of bfloat16 is float

    def term_magnitudes(self, *inputs: Array) -> Array:
        return self.reference(*map(np.abs, inputs))

    def value_bounds(self, node: Node, inputs: Sequence[Values]) -> Values:
        a, b = (each.together() for each in inputs)
        depth = node.inputs[0].shape[-1]
        square = (a.deviation**2 + a.mean**2) * (b.deviation**2 + b.mean**2)
        with np.errstate(invalid="ignore"):  # 0 times unknown is 0
            most = np.nan_to_num(a.most * b.most * depth, nan=0.0, posinf=np.inf)
        return Values(most, np.zeros(1), np.sqrt(square * depth))

    def follows(self, inputs: Sequence[TensorType], index: int, axis: int) -> int | None:
        rank = max(each.rank for each in inputs)
        at = rank - inputs[index].rank + axis
        other = inputs[1 - index]
        if at < rank - 2:
            place = at - (rank - other.rank)
            wide = place >= 0 and other.shape[place] > inputs[index].shape[axis]
            return None if wide else at
        return at if at == rank - 2 + index else None

    def cost(self, inputs: Sequence[TensorType], output: TensorType) -> Cost:
        return Cost(
            output.size * inputs[0].shape[-1], sum(t.nbytes for t in inputs) + output.nbytes
        )

    def ignores(self, inputs: Sequence[TensorType], index: int, axis: int) -> float | None:
        return 0.0 if axis == inputs[index].rank - (1 if index == 0 else 2) else None

    def to_onnx(self) -> OnnxForm:
        return "MatMul", {}, ()

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        def sample(label: str, a: tuple[int, ...], b: tuple[int, ...]) -> Sample:
            return Sample(cls(), (random_array(1, *a), random_array(2, *b)), label=label)

        return (
            sample("plain", (5, 7), (7, 9)),
            sample("wide", (16, 33), (33, 70)),
            sample("batch", (2, 3, 4, 5), (3, 5, 6)),
            sample("row", (1, 12), (12, 40)),
        )
