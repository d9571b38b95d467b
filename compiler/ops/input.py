"""Input: a tensor that the caller of the network supplies."""

from __future__ import annotations

from dataclasses import dataclass

from mdlc.compiler.ir import Node, make
from mdlc.compiler.op import Op
from mdlc.compiler.types import DType, TensorType


@dataclass(frozen=True)
class Input(Op):
    """An input of the network; Node.name is its ONNX name."""

    shape: tuple[int, ...]
    dtype: DType = DType.F32

    def infer(self, *inputs: TensorType) -> TensorType:
        return TensorType(self.shape, self.dtype)


def graph_input(name: str, shape: tuple[int, ...], dtype: DType = DType.F32) -> Node:
    """An input node."""
    return make(Input(shape, dtype), name=name)
