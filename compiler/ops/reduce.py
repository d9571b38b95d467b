"""Reduce: sums, means and extremes over axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Cost, LayoutRule, OnnxForm, Op, Sample, normalize_axis, random_array
from mdlc.compiler.ops.abs import Abs
from mdlc.compiler.ops.add import Add
from mdlc.compiler.ops.cast import Cast
from mdlc.compiler.ops.clip import Clip
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.div import Div
from mdlc.compiler.ops.exp import Exp
from mdlc.compiler.ops.log import Log
from mdlc.compiler.ops.mul import Mul
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.sub import Sub
from mdlc.compiler.types import Array, DType, TensorType
from mdlc.compiler.values import Values, largest_of

KINDS = {
    "sum": "ReduceSum",
    "mean": "ReduceMean",
    "max": "ReduceMax",
    "min": "ReduceMin",
    "prod": "ReduceProd",
    "l1": "ReduceL1",
    "l2": "ReduceL2",
    "sum_square": "ReduceSumSquare",
    "log_sum": "ReduceLogSum",
}


# What adds nothing to a reduction; a mean has no such value.
_NEUTRAL = {"sum": 0.0, "l1": 0.0, "l2": 0.0, "sum_square": 0.0, "log_sum": 0.0, "prod": 1.0,
            "max": -math.inf, "min": math.inf}  # fmt: skip
_LARGEST = {DType.F16: 65504.0, DType.BF16: 3.38e38, DType.F64: float(np.finfo(np.float64).max)}


@dataclass(frozen=True)
class Reduce(Op):
    """One value for all positions along `axes`.

    Attributes:
        kind: a key of KINDS.
        axes: sorted, none negative; keepdims: whether they stay with length 1.

    Sources: ONNX specification, operators Reduce*, GlobalAveragePool, GlobalMaxPool.
    """

    kind: str
    axes: tuple[int, ...]
    keepdims: bool = True

    onnx: ClassVar[tuple[str, ...]] = (
        *KINDS.values(),
        "ReduceLogSumExp",
        "GlobalAveragePool",
        "GlobalMaxPool",
    )
    layout_rule: ClassVar[LayoutRule] = LayoutRule.FOLLOWS

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        x = n.input(0)
        rank = len(x.shape)
        if n.op_type.startswith("Global"):
            kind = "mean" if n.op_type == "GlobalAveragePool" else "max"
            return n.make(cls(kind, tuple(range(2, rank))), x)
        kind = {name: key for key, name in KINDS.items()}.get(n.op_type, "log_sum_exp")
        by_input = n.opset >= (13 if kind == "sum" else 18)
        given = n.optional_const(1) if by_input else n.attr("axes")
        if given is None or len(given) == 0:
            # Without axes nothing is summed, but ReduceL1 still takes absolute values, and so on.
            given = () if n.attr("noop_with_empty_axes", 0) else range(rank)
        axes = tuple(sorted({normalize_axis(int(a), rank) for a in given}))
        keepdims = bool(n.attr("keepdims", 1))
        if x.type.dtype is DType.BOOL and x.type.size:  # of no elements, it is a constant
            whole = cls._made(n, kind, n.make(Cast(DType.I32), x), axes, keepdims)
            return n.make(Cast(DType.BOOL), whole)
        if kind.startswith("log") and not x.type.dtype.is_float:
            wide = cls._made(n, kind, n.make(Cast(DType.F32), x), axes, keepdims)
            return n.make(Cast(x.type.dtype), wide)
        return cls._made(n, kind, x, axes, keepdims)

    @classmethod
    def _made(cls, n: OnnxNode, kind: str, x: Node, axes: tuple[int, ...], keepdims: bool) -> Node:
        if not axes:
            return cls._of_one(n, kind, x)
        if kind == "log_sum_exp":
            return cls._log_sum_exp(n, x, axes, keepdims)
        counts = n.counts(0) if kind == "mean" else {}
        if any(axis in counts for axis in axes):
            return cls._mean_of_counted(n, x, axes, keepdims)
        return n.make(cls(kind, axes, keepdims), x)

    @classmethod
    def _mean_of_counted(cls, n: OnnxNode, x: Node, axes: tuple[int, ...], keepdims: bool) -> Node:
        """The sum over how many there are, where that depends on data."""
        count, others = n.make(Cast(x.type.dtype), constant(np.ones(1, np.int64))), 1
        for axis in axes:
            if axis in n.counts(0):
                entries = n.make(Cast(x.type.dtype), n.counts(0)[axis])
                count = n.make(Mul(), count, entries)
            else:
                others *= x.shape[axis]
        count = n.make(Mul(), count, constant(np.array(others, x.type.dtype.numpy)))
        return n.make(Div(), n.make(cls("sum", axes, keepdims), x), n.make(Reshape(()), count))

    @staticmethod
    def _of_one(n: OnnxNode, kind: str, x: Node) -> Node:
        """What a reduction makes of each element when there is nothing to combine."""
        if kind in ("l1", "l2"):
            return n.make(Abs(), x)
        if kind == "sum_square":
            return n.make(Mul(), x, x)
        return n.make(Log(), x) if kind == "log_sum" else x

    @classmethod
    def _log_sum_exp(cls, n: OnnxNode, x: Node, axes: tuple[int, ...], keepdims: bool) -> Node:
        # log(sum(exp(x))) = top + log(sum(exp(x - top))), which does not overflow; an infinite top
        # would leave inf - inf, a finite one gives the infinity that the result is.
        largest = _LARGEST.get(x.type.dtype, float(np.finfo(np.float32).max))
        top = n.make(Clip(-largest, largest), n.make(cls("max", axes), x))
        powers = n.make(Exp(), n.make(Sub(), x, top))
        rest = n.make(cls("log_sum", axes, keepdims), powers)
        return n.make(Add(), rest, n.make(Reshape(rest.shape), top))

    def infer(self, *inputs: TensorType) -> TensorType:
        x = inputs[0]
        if self.kind not in KINDS or any(not 0 <= a < x.rank for a in self.axes):
            raise MdlcError(f"cannot reduce {x} by {self.kind} over axes {list(self.axes)}")
        if self.keepdims:
            shape = [1 if i in self.axes else d for i, d in enumerate(x.shape)]
        else:
            shape = [d for i, d in enumerate(x.shape) if i not in self.axes]
        return TensorType(tuple(shape), x.dtype)

    def channel_map(
        self, inputs: Sequence[TensorType], output: TensorType
    ) -> tuple[Array | None, ...] | None:
        alone = self.keepdims and output.rank > 1 and not {0, 1} & set(self.axes)
        return (np.arange(output.shape[1]),) if alone else None

    @property
    def _chooses(self) -> bool:
        return self.kind in ("max", "min", "mean")

    def keeps_magnitude(self, inputs: Sequence[TensorType]) -> bool:
        return self._chooses

    def _alone(self, rank: int) -> bool:
        """Whether channels stay what they are."""
        return not {0, 1} & set(self.axes) and rank in (2, 4)

    def value_bounds(self, node: Node, inputs: Sequence[Values]) -> Values:
        if self._chooses:
            return inputs[0] if self._alone(node.inputs[0].type.rank) else inputs[0].together()
        count = node.inputs[0].type.size // max(1, node.type.size)
        one = inputs[0].together()
        made = one.times(count)
        limit = largest_of(node.type.dtype)
        known = made.most if self.kind in ("sum", "l1") else np.full(1, np.inf)
        return replace(made, most=np.minimum(known, limit))

    def constant_channels(self, node: Node, known: Sequence[Array]) -> Array:
        alone = self._chooses and self._alone(node.inputs[0].type.rank)
        return known[0] if alone else np.full(node.shape[1], np.nan)

    def reference(self, *inputs: Array) -> Array:
        x = inputs[0]
        wide = x.astype(np.float64) if x.dtype.kind == "f" else x
        over: dict[str, Any] = {"axis": self.axes, "keepdims": self.keepdims}
        if self.kind in ("max", "min") and x.size == 0:
            y = np.full(np.sum(x, **over).shape, _of_nothing(self.kind, x.dtype))
        elif self.kind in ("max", "min", "prod", "sum", "mean"):
            y = getattr(np, self.kind)(wide, **over)
        elif self.kind == "l1":
            y = np.abs(wide).sum(**over)
        elif self.kind == "log_sum":
            y = np.log(wide.sum(**over))
        else:
            y = (wide * wide).sum(**over)
            y = np.sqrt(y) if self.kind == "l2" else y
        return np.asarray(y).astype(x.dtype)

    def follows(self, inputs: Sequence[TensorType], index: int, axis: int) -> int | None:
        if axis in self.axes:
            return None
        return axis if self.keepdims else axis - sum(other < axis for other in self.axes)

    def ignores(self, inputs: Sequence[TensorType], index: int, axis: int) -> float | None:
        return _NEUTRAL.get(self.kind)

    def cost(self, inputs: Sequence[TensorType], output: TensorType) -> Cost:
        return Cost(0, inputs[0].nbytes + output.nbytes)

    def to_onnx(self) -> OnnxForm:
        axes = np.array(self.axes, np.int64)
        return KINDS[self.kind], {"keepdims": int(self.keepdims)}, (axes,)

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        x = random_array(1, 2, 19, 4, 5, low=0.1, high=2.0)
        whole = np.arange(-12, 12).reshape(2, 3, 4)
        every = tuple(
            Sample(cls(kind, (2, 3), keepdims), (x,), label=f"{kind}_{keepdims}")
            for kind in KINDS
            for keepdims in (True, False)
        )
        return (
            *every,
            Sample(cls("mean", (1,)), (x,), label="channels"),
            Sample(cls("sum", (3,), False), (x,), label="last"),
            Sample(cls("max", (0, 1, 2, 3), False), (x,), label="all"),
            Sample(cls("mean", (0, 2)), (x,), label="mixed"),
            *(
                Sample(cls(kind, (1,)), (whole.astype(dtype),), label=f"{kind}_{dtype.__name__}")
                for kind in ("sum", "max", "min", "prod")
                for dtype in (np.int32, np.int64)
            ),
        )


def _of_nothing(kind: str, dtype: np.dtype[Any]) -> Any:
    """The extreme of no elements: what every other value exceeds."""
    if dtype.kind == "b":
        return kind == "min"
    if dtype.kind == "f":
        return np.inf if kind == "min" else -np.inf
    return np.iinfo(dtype).max if kind == "min" else np.iinfo(dtype).min
