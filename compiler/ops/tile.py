"""Tile: a tensor repeated along its axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import OnnxForm, Op, Sample, random_array
from mdlc.compiler.types import Array, TensorType


@dataclass(frozen=True)
class Tile(Op):
    """x repeated `repeats` times on each axis. Source: ONNX specification, operator Tile."""

    repeats: tuple[int, ...]

    onnx: ClassVar[tuple[str, ...]] = ("Tile",)

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        return n.make(cls(tuple(int(r) for r in n.const(1).reshape(-1))), n.input(0))

    def infer(self, *inputs: TensorType) -> TensorType:
        x = inputs[0]
        if len(self.repeats) != x.rank or min(self.repeats, default=1) < 1:
            raise MdlcError(f"repeats {list(self.repeats)} do not fit {x}")
        shape = tuple(d * r for d, r in zip(x.shape, self.repeats, strict=True))
        return TensorType(shape, x.dtype)

    def reference(self, *inputs: Array) -> Array:
        return np.tile(inputs[0], self.repeats)

    def moves(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return (0,)

    def is_identity(self, x: TensorType) -> bool:
        return True

    def to_onnx(self) -> OnnxForm:
        return "Tile", {}, (np.array(self.repeats, np.int64),)

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = random_array(1, 2, 3, 2, 5)
        return (
            Sample(cls((1, 2, 3, 1)), (x,), label="inner"),
            Sample(cls((2, 1, 1, 2)), (x,), label="outer"),
        )
