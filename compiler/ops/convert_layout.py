"""ConvertLayout: the same tensor in another memory order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mdlc.compiler.op import Op
from mdlc.compiler.types import Array, Layout, TensorType


@dataclass(frozen=True)
class ConvertLayout(Op):
    """Logically the identity; inserted by the layout pass."""

    layout: Layout

    def infer(self, *inputs: TensorType) -> TensorType:
        return inputs[0].with_layout(self.layout)

    def reference(self, *inputs: Array) -> Array:
        return inputs[0]

    def moves(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return (0,)

    def is_identity(self, x: TensorType) -> bool:
        return x.layout is self.layout

    def __str__(self) -> str:
        return f"ConvertLayout(layout={self.layout.value!r})"
