"""Tensor types: shape, element type, physical layout and quantisation."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class DType(enum.Enum):
    """Element types; the value is the spelling in IR text.

    Those from BF16 on are only stored: operators that compute are handed wider elements. Elements
    of fewer than 8 bits lie in a byte each, in its lowest bits; the others are 0.
    """

    F16 = "f16"
    F32 = "f32"
    F64 = "f64"
    I8 = "i8"
    U8 = "u8"
    I16 = "i16"
    U16 = "u16"
    I32 = "i32"
    U32 = "u32"
    I64 = "i64"
    U64 = "u64"
    BOOL = "bool"
    BF16 = "bf16"
    F8E4M3FN = "f8e4m3fn"
    F8E4M3FNUZ = "f8e4m3fnuz"
    F8E5M2 = "f8e5m2"
    F8E5M2FNUZ = "f8e5m2fnuz"
    F8E8M0 = "f8e8m0"
    F6E2M3 = "f6e2m3"
    F6E3M2 = "f6e3m2"
    F4E2M1 = "f4e2m1"
    I4 = "i4"
    U4 = "u4"
    I2 = "i2"
    U2 = "u2"

    @property
    def numpy(self) -> np.dtype[Any]:
        """The numpy dtype of the same elements."""
        return _NUMPY[self]

    @property
    def size(self) -> int:
        """Bytes of one element."""
        return self.numpy.itemsize

    @property
    def is_float(self) -> bool:
        """True for f16, f32 and f64."""
        return self in (DType.F16, DType.F32, DType.F64)

    @property
    def is_stored(self) -> bool:
        """Whether elements are only stored, and made wider ones before anything is computed."""
        return self in _STORED

    @property
    def bits(self) -> int:
        """Bits of one element that mean something."""
        return _BITS.get(self, self.size * 8)

    @classmethod
    def from_numpy(cls, dtype: npt.DTypeLike) -> DType:
        """The DType of a numpy dtype; KeyError if there is none."""
        return _FROM_NUMPY[np.dtype(dtype)]


_NUMPY: dict[DType, np.dtype[Any]] = {
    DType.F16: np.dtype(np.float16),
    DType.F32: np.dtype(np.float32),
    DType.F64: np.dtype(np.float64),
    DType.I8: np.dtype(np.int8),
    DType.U8: np.dtype(np.uint8),
    DType.I16: np.dtype(np.int16),
    DType.U16: np.dtype(np.uint16),
    DType.I32: np.dtype(np.int32),
    DType.U32: np.dtype(np.uint32),
    DType.I64: np.dtype(np.int64),
    DType.U64: np.dtype(np.uint64),
    DType.BOOL: np.dtype(np.bool_),
    DType.BF16: np.dtype(ml_dtypes.bfloat16),
    DType.F8E4M3FN: np.dtype(ml_dtypes.float8_e4m3fn),
    DType.F8E4M3FNUZ: np.dtype(ml_dtypes.float8_e4m3fnuz),
    DType.F8E5M2: np.dtype(ml_dtypes.float8_e5m2),
    DType.F8E5M2FNUZ: np.dtype(ml_dtypes.float8_e5m2fnuz),
    DType.F8E8M0: np.dtype(ml_dtypes.float8_e8m0fnu),
    DType.F6E2M3: np.dtype(ml_dtypes.float6_e2m3fn),
    DType.F6E3M2: np.dtype(ml_dtypes.float6_e3m2fn),
    DType.F4E2M1: np.dtype(ml_dtypes.float4_e2m1fn),
    DType.I4: np.dtype(ml_dtypes.int4),
    DType.U4: np.dtype(ml_dtypes.uint4),
    DType.I2: np.dtype(ml_dtypes.int2),
    DType.U2: np.dtype(ml_dtypes.uint2),
}
_BITS = {
    DType.F6E2M3: 6,
    DType.F6E3M2: 6,
    DType.F4E2M1: 4,
    DType.I4: 4,
    DType.U4: 4,
    DType.I2: 2,
    DType.U2: 2,
}
_STORED = frozenset((*_BITS, DType.BF16, DType.F8E4M3FN, DType.F8E4M3FNUZ, DType.F8E5M2,
                     DType.F8E5M2FNUZ, DType.F8E8M0))  # fmt: skip
_FROM_NUMPY = {dtype: name for name, dtype in _NUMPY.items()}


class Layout(enum.Enum):
    """How a tensor lies in memory, relative to its logical (ONNX) shape.

    A type's shape is always the logical one: a convolution's tensors are N, C, H, W whatever
    their layout, so that reference semantics never depend on layout. NHWC is for rank 4 only.
    """

    PLAIN = "plain"
    NHWC = "nhwc"

    def axes(self, rank: int) -> tuple[int, ...]:
        """Logical axis of each physical axis, outermost first."""
        if self is Layout.NHWC:
            if rank != 4:
                raise ValueError(f"layout nhwc needs rank 4, not {rank}")
            return (0, 2, 3, 1)
        return tuple(range(rank))


@dataclass(frozen=True)
class Quant:
    """Affine quantisation: real = scale * (integer - zero_point), per tensor or along an axis."""

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None


@dataclass(frozen=True)
class TensorType:
    """Logical shape, element type, physical layout and quantisation of a tensor."""

    shape: tuple[int, ...]
    dtype: DType = DType.F32
    layout: Layout = Layout.PLAIN
    quant: Quant | None = None

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes when stored densely."""
        return self.size * self.dtype.size

    @property
    def physical_shape(self) -> tuple[int, ...]:
        """The shape in memory order, outermost first."""
        return tuple(self.shape[axis] for axis in self.layout.axes(self.rank))

    def physical_axis(self, axis: int) -> int:
        """Where a logical axis (negative counts from the end) stands in memory order."""
        return self.layout.axes(self.rank).index(axis % self.rank)

    def to_physical(self, array: Array) -> Array:
        """A logical array rearranged (copied if need be) to memory order."""
        return np.ascontiguousarray(
            array.reshape(self.shape).transpose(self.layout.axes(self.rank))
        )

    def to_logical(self, array: Array) -> Array:
        """An array in memory order rearranged to the logical shape."""
        axes = self.layout.axes(self.rank)
        logical = array.reshape(self.physical_shape).transpose(np.argsort(axes))
        return np.ascontiguousarray(logical).reshape(self.shape)  # rank 0 became 1

    def with_shape(self, shape: Sequence[int]) -> TensorType:
        """The same type with another shape."""
        return replace(self, shape=tuple(int(d) for d in shape))

    def with_dtype(self, dtype: DType) -> TensorType:
        """The same type with another element type."""
        return replace(self, dtype=dtype)

    def with_layout(self, layout: Layout) -> TensorType:
        """The same type in another layout."""
        return replace(self, layout=layout)

    def __str__(self) -> str:
        layout = "" if self.layout is Layout.PLAIN else f"@{self.layout.value}"
        return f"{self.dtype.value}[{','.join(map(str, self.shape))}]{layout}"
