"""Constant: a value of the graph itself (weights, folded shape arithmetic)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mdlc.compiler.ir import Node, make
from mdlc.compiler.op import Op
from mdlc.compiler.types import Array, DType, TensorType


@dataclass(frozen=True, eq=False)
class Constant(Op):
    """A constant tensor; equal to another of the same type and bytes."""

    value: Array

    def __post_init__(self) -> None:
        if self.value.flags.writeable or not self.value.flags.c_contiguous:
            frozen = self.value.copy()  # ascontiguousarray would turn rank 0 into rank 1
            frozen.flags.writeable = False
            object.__setattr__(self, "value", frozen)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of type and bytes, hexadecimal."""
        return hashlib.sha256(
            f"{self.value.dtype}{self.value.shape}".encode() + self.value.tobytes()
        ).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def infer(self, *inputs: TensorType) -> TensorType:
        return TensorType(self.value.shape, DType.from_numpy(self.value.dtype))

    def reference(self, *inputs: Array) -> Array:
        return self.value

    def __str__(self) -> str:
        if self.value.size <= 16:
            return f"Constant({self.value.tolist()!r})"
        first = self.value.reshape(-1)[0]
        same = bool(np.all(self.value == first))
        if same and self.value.dtype.kind == "f":  # 0.0 and -0.0 are equal, but not the same
            same = bool(np.all(np.signbit(self.value) == np.signbit(first)))
        if same:
            return f"Full({first.item()!r})"
        return f"Data({self.digest[:16]!r})"


def constant(value: Array, name: str = "") -> Node:
    """A constant node."""
    return make(Constant(np.asarray(value)), name=name)
