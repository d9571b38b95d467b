"""Shape, Size, ConstantOfShape, Range, Constant: folded when a model is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Op
from mdlc.compiler.ops.add import Add
from mdlc.compiler.ops.cast import Cast
from mdlc.compiler.ops.concat import Concat
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.expand import Expand
from mdlc.compiler.ops.mul import Mul
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.types import Array

LONGEST_RANGE = 2**24


@dataclass(frozen=True)
class Shape(Op):
    """Imported as constants: shapes are static. Sources: ONNX specification, these operators."""

    onnx: ClassVar[tuple[str, ...]] = (
        "Shape", "Size", "ConstantOfShape", "Range", "Constant",
    )  # fmt: skip

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        if n.op_type == "ConstantOfShape":
            return cls._constant_of_shape(n)
        if n.op_type == "Range" and any(n.input(i).constant is None for i in range(3)):
            return cls._range_at_run_time(n)
        if n.op_type in ("Shape", "Size") and n.counts(0):
            return cls._shape_at_run_time(n)
        value: Array = getattr(cls, f"_{n.op_type.lower()}")(n)
        return constant(value, name=n.outputs[0])

    @staticmethod
    def _shape(n: OnnxNode) -> Array:
        shape = n.input(0).shape
        return np.array(shape[n.attr("start", 0) : n.attr("end", len(shape))], np.int64)

    @staticmethod
    def _shape_at_run_time(n: OnnxNode) -> Node:
        """The shape of a tensor whose length depends on data."""
        shape, counts = n.input(0).shape, n.counts(0)
        each = [
            counts.get(axis) or constant(np.array([length], np.int64))
            for axis, length in enumerate(shape)
        ]
        if n.op_type == "Size":
            size = each[0]
            for length in each[1:]:
                size = n.make(Mul(), size, length)
            return n.make(Reshape(()), size)
        each = each[n.attr("start", 0) : n.attr("end", len(shape))]
        if all(length.constant is not None for length in each):
            found = [length.constant for length in each if length.constant is not None]
            return constant(np.concatenate([np.zeros(0, np.int64), *found]), n.outputs[0])
        return each[0] if len(each) == 1 else n.make(Concat(0), *each)

    @staticmethod
    def _size(n: OnnxNode) -> Array:
        return np.array(n.input(0).type.size, np.int64)

    @staticmethod
    def _constant_of_shape(n: OnnxNode) -> Node:
        value = n.attr("value", np.zeros(1, np.float32))
        if value.size != 1:
            raise n.error(f"value has {value.size} elements, not one")
        shape, open_axes = n.dims(0)
        if min(shape, default=1) < 0:
            raise n.error(f"shape {list(shape)} has a negative dimension")
        # Nothing is made of a shape that may be absurd: the importer folds what is small.
        y = n.make(Expand(shape), constant(value.reshape(())))
        if not open_axes:
            return y
        from mdlc.compiler.ops.span import opened  # it is made of operators that import this

        return opened(n, y, open_axes)

    @staticmethod
    def _range(n: OnnxNode) -> Array:
        start, limit, delta = (n.const(i).item() for i in range(3))
        if delta == 0 or not (limit - start) / delta <= LONGEST_RANGE:
            raise n.error(f"a range from {start} to {limit} in steps of {delta} makes no sense")
        return np.arange(start, limit, delta, dtype=n.const(0).dtype)

    @staticmethod
    def _range_at_run_time(n: OnnxNode) -> Node:
        """A range whose length alone is known, from the shape that the model declares."""
        start, delta = n.input(0), n.input(2)
        shape = n.declared[0] if n.declared else None
        found = None if n.lengths is None else n.lengths.lengths(n.input(1))
        (limit,) = found if found is not None and len(found) == 1 else (None,)
        plain = [v.constant is not None and int(v.constant) for v in (start, delta)] == [0, 1]
        if plain and limit is not None and limit.count is not None:
            from mdlc.compiler.counts import part
            from mdlc.compiler.ops.span import span_of

            places = part(span_of(n, limit.count, limit.most), 0)
            return n.make(Cast(start.type.dtype), places)
        if shape is None or len(shape) != 1:
            raise n.at_run_time(
                "its length is computed at run time",
                start, n.input(1), delta,
                hint="export it with a fixed length",
            )  # fmt: skip
        place = constant(np.arange(shape[0]).astype(start.type.dtype.numpy))
        steps = n.make(Mul(), place, n.make(Reshape((1,)), delta))
        return n.make(Add(), n.make(Reshape((1,)), start), steps)

    @staticmethod
    def _constant(n: OnnxNode) -> Array:
        for key, dtype in (("value_float", np.float32), ("value_floats", np.float32),
                           ("value_int", np.int64), ("value_ints", np.int64)):  # fmt: skip
            if n.attr(key) is not None:
                return np.array(n.attr(key), dtype)
        value = n.attr("value")
        if not isinstance(value, np.ndarray):
            raise n.error("sparse and string constants are not supported")
        return value
