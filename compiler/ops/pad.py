"""Pad: a border around a tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node, make
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import LayoutRule, OnnxForm, Op, Sample, normalize_axis, random_array
from mdlc.compiler.ops.slice import Slice
from mdlc.compiler.types import Array, TensorType
from mdlc.compiler.values import Values


@dataclass(frozen=True)
class Pad(Op):
    """A border of `value`, or of the tensor's own elements.

    Attributes:
        begins, ends: elements added on each axis, none negative.
        mode: "constant", "reflect", "edge" or "wrap".

    Source: ONNX specification, operator Pad.
    """

    begins: tuple[int, ...]
    ends: tuple[int, ...]
    value: float = 0.0
    mode: str = "constant"

    onnx: ClassVar[tuple[str, ...]] = ("Pad",)
    layout_rule: ClassVar[LayoutRule] = LayoutRule.FOLLOWS

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x = n.input(0)
        rank = len(x.shape)
        if n.opset < 11:
            pads, value = [int(p) for p in n.attr("pads")], float(n.attr("value", 0.0))
            axes = list(range(rank))
        else:
            pads = [int(p) for p in n.const(1).reshape(-1)]
            fill, given = n.optional_const(2), n.optional_const(3)
            value = 0.0 if fill is None else fill.reshape(-1)[0].item()
            axes = [normalize_axis(int(a), rank) for a in range(rank) if given is None]
            axes = axes or [normalize_axis(int(a), rank) for a in given.reshape(-1)]  # type: ignore[union-attr]
        if len(pads) != 2 * len(axes):
            raise n.error(f"{len(pads)} pads for {len(axes)} axes")
        begins, ends = [0] * rank, [0] * rank
        for i, axis in enumerate(axes):
            begins[axis], ends[axis] = pads[i], pads[i + len(axes)]
        if min(*begins, *ends) < 0:  # a negative pad crops
            starts = tuple(max(-b, 0) for b in begins)
            lengths = tuple(
                d + min(b, 0) + min(e, 0) for d, b, e in zip(x.shape, begins, ends, strict=True)
            )
            x = n.make(Slice(starts, lengths, (1,) * rank), x)
            begins, ends = [max(b, 0) for b in begins], [max(e, 0) for e in ends]
        mode = n.attr("mode", "constant")
        return n.make(cls(tuple(begins), tuple(ends), value, mode), x)

    def infer(self, *inputs: TensorType) -> TensorType:
        x = inputs[0]
        if len(self.begins) != x.rank or min((*self.begins, *self.ends), default=0) < 0:
            raise MdlcError(f"pads {self.begins} and {self.ends} do not fit {x}")
        if self.mode not in ("constant", "reflect", "edge", "wrap"):
            raise MdlcError(f"padding mode {self.mode!r} is not known")
        if self.mode == "reflect" and any(
            max(b, e) >= d for b, e, d in zip(self.begins, self.ends, x.shape, strict=True)
        ):
            raise MdlcError(f"reflected pads {self.begins} and {self.ends} are too long for {x}")
        shape = tuple(d + b + e for d, b, e in zip(x.shape, self.begins, self.ends, strict=True))
        return TensorType(shape, x.dtype)

    def channel_map(
        self, inputs: Sequence[TensorType], output: TensorType
    ) -> tuple[Array | None, ...] | None:
        if output.rank < 2 or (self.mode != "constant" and (self.begins[1] or self.ends[1])):
            return None
        return (self.source_index(1, inputs[0].shape[1]),)

    def on_channels(
        self, inputs: Sequence[Node], kept: Array, kept_inputs: Sequence[Array], name: str
    ) -> Node:
        begins, ends = list(self.begins), list(self.ends)
        begins[1] = int(kept[: begins[1]].sum())
        ends[1] = int(kept[len(kept) - ends[1] :].sum())
        return make(replace(self, begins=tuple(begins), ends=tuple(ends)), *inputs, name=name)

    def source_index(self, axis: int, length: int) -> Array:
        """Index in x of every position of y along an axis; -1 where it is `value`."""
        position = np.arange(-self.begins[axis], length + self.ends[axis])
        if self.mode == "constant":
            return np.where((position >= 0) & (position < length), position, -1)
        if self.mode == "edge":
            return np.clip(position, 0, length - 1)
        if self.mode == "wrap":
            return position % length
        period = max(2 * (length - 1), 1)
        folded = np.abs(position) % period
        return np.minimum(folded, period - folded) if length > 1 else folded * 0

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0]
        pairs = list(zip(self.begins, self.ends, strict=True))
        if self.mode == "constant":
            return np.pad(x, pairs, constant_values=x.dtype.type(self.value))
        if self.mode == "reflect":
            return np.pad(x, pairs, mode="reflect")
        return np.pad(x, pairs, mode="edge" if self.mode == "edge" else "wrap")

    def moves(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return (0,)

    def is_identity(self, x: TensorType) -> bool:
        return True

    def with_fill(self, converted: Callable[[float], float]) -> Op:
        return replace(self, value=converted(self.value)) if self.mode == "constant" else self

    def keeps_magnitude(self, inputs: Sequence[TensorType]) -> bool:
        return self.mode != "constant" or abs(self.value) <= 1

    def value_bounds(self, node: Node, inputs: Sequence[Values]) -> Values:
        x = inputs[0]
        fill = abs(self.value) if self.mode == "constant" else 0.0
        if self.begins[1:2] != self.ends[1:2] or any(self.begins[1:2]):
            x = x.together()
        return Values(np.maximum(x.most, fill), x.mean, x.deviation)

    def constant_channels(self, node: Node, known: Sequence[Array]) -> Array:
        found = super().constant_channels(node, known)
        if self.mode != "constant" or not any((*self.begins, *self.ends)):
            return found
        return np.where(found == self.value, found, np.nan)

    def to_onnx(self) -> OnnxForm:
        value = np.array(self.value, np.float32) if self.mode == "constant" else None
        pads = np.array((*self.begins, *self.ends), np.int64)
        return "Pad", {"mode": self.mode}, (pads, value)

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = random_array(1, 1, 10, 5, 6)
        begins, ends = (0, 0, 1, 2), (0, 0, 2, 0)
        return (
            Sample(cls(begins, ends), (x,), label="spatial"),
            Sample(cls((0, 2, 0, 1), (1, 3, 0, 0), 1.5), (x,), label="channels"),
            *(
                Sample(cls(begins, ends, mode=m), (x,), label=m)
                for m in ("reflect", "edge", "wrap")
            ),
        )
