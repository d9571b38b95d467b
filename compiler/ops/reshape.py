"""Reshape: the same elements in order under another shape (Flatten, Squeeze and Unsqueeze too)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import OnnxForm, Op, Sample, normalize_axis, random_array
from mdlc.compiler.types import Array, TensorType
from mdlc.compiler.values import Values


@dataclass(frozen=True)
class Reshape(Op):
    """y = x with `shape`. Sources: ONNX specification, Reshape, Flatten, Squeeze, Unsqueeze."""

    shape: tuple[int, ...]

    onnx: ClassVar[tuple[str, ...]] = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x = n.input(0)
        shape = getattr(cls, f"_{n.op_type.lower()}")(n, x.shape)
        y = n.make(cls(shape), x)
        if n.op_type == "Reshape" and n.lengths is not None:
            counts = n.lengths.of(y)
            for axis, length in n.dims(1)[1].items():
                if axis not in counts or length.most != y.shape[axis]:
                    raise n.error(f"its length along axis {axis} is a count of another tensor")
        return y

    @staticmethod
    def _reshape(n: OnnxNode, old: tuple[int, ...]) -> tuple[int, ...]:
        wanted = list(n.dims(1)[0])
        if not n.attr("allowzero", 0):
            if any(d == 0 and i >= len(old) for i, d in enumerate(wanted)):
                raise n.error(f"shape {wanted} copies a dimension that {list(old)} lacks")
            wanted = [old[i] if d == 0 else d for i, d in enumerate(wanted)]
        if wanted.count(-1) > 1:
            raise n.error(f"shape {wanted} leaves more than one dimension open")
        if -1 in wanted:
            rest = math.prod(d for d in wanted if d != -1)
            if rest == 0 or math.prod(old) % rest:
                raise n.error(f"{list(old)} does not reshape to {wanted}")
            wanted[wanted.index(-1)] = math.prod(old) // rest
        return tuple(wanted)

    @staticmethod
    def _flatten(n: OnnxNode, old: tuple[int, ...]) -> tuple[int, ...]:
        axis = n.attr("axis", 1)
        if not -len(old) <= axis <= len(old):
            raise n.error(f"axis {axis} is outside a tensor of rank {len(old)}")
        axis = axis + len(old) if axis < 0 else axis
        return math.prod(old[:axis]), math.prod(old[axis:])

    @staticmethod
    def _axes(n: OnnxNode, rank: int) -> list[int] | None:
        given = n.attr("axes") if n.opset < 13 else n.optional_const(1)
        if given is None:
            return None
        return [normalize_axis(int(a), rank) for a in np.reshape(given, -1)]

    @classmethod
    def _squeeze(cls, n: OnnxNode, old: tuple[int, ...]) -> tuple[int, ...]:
        axes = cls._axes(n, len(old))
        if axes is None:
            return tuple(d for d in old if d != 1)
        if any(old[a] != 1 for a in axes):
            raise n.error(f"axes {axes} of shape {list(old)} are not all 1")
        return tuple(d for i, d in enumerate(old) if i not in axes)

    @classmethod
    def _unsqueeze(cls, n: OnnxNode, old: tuple[int, ...]) -> tuple[int, ...]:
        count = len(n.attr("axes", ()) if n.opset < 13 else n.const(1).reshape(-1))
        axes = cls._axes(n, len(old) + count) or []
        rest = iter(old)
        return tuple(1 if i in axes else next(rest) for i in range(len(old) + count))

    def infer(self, *inputs: TensorType) -> TensorType:
        result = TensorType(self.shape, inputs[0].dtype, quant=inputs[0].quant)
        if result.size != inputs[0].size or min(self.shape, default=1) < 0:
            raise MdlcError(f"shape {list(inputs[0].shape)} does not reshape to {list(self.shape)}")
        return result

    def reference(self, *inputs: Array) -> Array:
        return inputs[0].reshape(self.shape)

    def channel_map(
        self, inputs: Sequence[TensorType], output: TensorType
    ) -> tuple[Array | None, ...] | None:
        """A flattening [N, C, ...] -> [N, C * rest] ties every feature to its channel."""
        x = inputs[0]
        if x.rank < 2 or output.rank != 2 or x.shape[0] != output.shape[0]:
            return None
        return (np.repeat(np.arange(x.shape[1]), output.shape[1] // x.shape[1]),)

    def with_channels(self, inputs: Sequence[TensorType], kept: Array) -> Op:
        return Reshape((self.shape[0], len(kept)))

    def moves(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return (0,)

    def is_identity(self, x: TensorType) -> bool:
        return True

    def value_bounds(self, node: Node, inputs: Sequence[Values]) -> Values:
        """Channels stay apart where the first two axes stay."""
        shapes = node.inputs[0].shape, node.shape
        alike = all(len(shape) in (2, 4) for shape in shapes) and shapes[0][:2] == shapes[1][:2]
        return inputs[0] if alike else super().value_bounds(node, inputs)

    def follows(self, inputs: Sequence[TensorType], index: int, axis: int) -> int | None:
        length, before = inputs[0].shape[axis], math.prod(inputs[0].shape[:axis])
        for at, own in enumerate(self.shape):
            if own == length and math.prod(self.shape[:at]) == before:
                return at
        return None

    def merges(self, inputs: Sequence[TensorType], index: int, axis: int) -> tuple[int, int] | None:
        old = inputs[0].shape
        inner, rest = math.prod(old[axis + 1 :]), math.prod(self.shape[axis + 1 :])
        same = self.shape[:axis] == old[:axis] and axis < len(self.shape)
        return (axis, inner // rest) if same and inner % rest == 0 else None

    def to_onnx(self) -> OnnxForm:
        return "Reshape", {}, (np.array(self.shape, np.int64),)

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = random_array(1, 2, 3, 4, 5)
        return (
            Sample(cls((2, 60)), (x,), label="flatten"),
            Sample(cls((6, 20)), (x,), label="merge"),
            Sample(cls((1, 2, 3, 4, 1, 5)), (x,), label="unsqueeze"),
        )
