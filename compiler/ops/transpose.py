"""Transpose: axes in another order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import OnnxForm, Op, Sample, random_array
from mdlc.compiler.types import Array, TensorType


@dataclass(frozen=True)
class Transpose(Op):
    """y's axis i is x's axis perm[i]. Source: ONNX specification, operator Transpose."""

    perm: tuple[int, ...]

    onnx: ClassVar[tuple[str, ...]] = ("Transpose",)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x = n.input(0)
        return n.make(cls(n.attr("perm", tuple(reversed(range(len(x.shape)))))), x)

    def infer(self, *inputs: TensorType) -> TensorType:
        x = inputs[0]
        if sorted(self.perm) != list(range(x.rank)):
            raise MdlcError(f"{list(self.perm)} does not permute the axes of {x}")
        return TensorType(tuple(x.shape[axis] for axis in self.perm), x.dtype, quant=x.quant)

    def reference(self, *inputs: Array) -> Array:
        return inputs[0].transpose(self.perm)

    def moves(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return (0,)

    def is_identity(self, x: TensorType) -> bool:
        kept = [axis for axis in self.perm if x.shape[axis] != 1]
        return kept == sorted(kept)

    def follows(self, inputs: Sequence[TensorType], index: int, axis: int) -> int | None:
        return self.perm.index(axis)

    def to_onnx(self) -> OnnxForm:
        return "Transpose", {"perm": self.perm}, ()

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = random_array(1, 2, 5, 6, 7)
        perms = ((0, 2, 3, 1), (0, 3, 1, 2), (3, 2, 1, 0), (0, 1, 3, 2))
        return (
            *(Sample(cls(perm), (x,), label="".join(map(str, perm))) for perm in perms),
            Sample(cls((1, 0)), (random_array(2, 17, 33),), label="matrix"),
            Sample(cls((0, 2, 1, 3, 4)), (random_array(3, 1, 2, 8, 3, 3),), label="shuffle"),
        )
