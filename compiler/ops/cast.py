"""Cast: the same values in another element type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx

from mdlc.compiler.expr import Expr
from mdlc.compiler.ir import Node
from mdlc.compiler.onnx_node import OnnxNode
from mdlc.compiler.op import Elementwise, OnnxForm, Sample, random_array
from mdlc.compiler.types import Array, DType, TensorType
from mdlc.compiler.values import Values, largest_of, of_type


@dataclass(frozen=True)
class Cast(Elementwise):
    """y = x in `dtype`; floats are truncated towards zero to integers.

    Integers of fewer than 8 bits keep the lowest bits.

    Attributes:
        saturate: of 8-bit floats, whether what is too large becomes the largest finite number.
        round_mode: of E8M0, "up", "down" or "nearest".

    Source: ONNX specification, operators Cast and CastLike.
    """

    dtype: DType
    saturate: bool = True
    round_mode: str = "up"

    onnx: ClassVar[tuple[str, ...]] = ("Cast", "CastLike")

    @classmethod
    def from_onnx(cls, n: OnnxNode) -> Node:
        if n.op_type == "CastLike":
            dtype = n.input(1).type.dtype
        else:
            code = n.attr("to")
            try:
                dtype = DType.from_numpy(onnx.helper.tensor_dtype_to_np_dtype(code))
            except (KeyError, TypeError, ValueError):
                raise n.error(f"cast to element type {code} is not supported") from None
        x = n.input(0)
        mode = n.attr("round_mode", "up")
        if mode not in ("up", "down", "nearest"):
            raise n.error(f"there is no round_mode {mode!r}")
        bounded = dtype not in _BOUNDED or bool(n.attr("saturate", 1))
        op = cls(dtype, bounded, mode if dtype is DType.F8E8M0 else "up")
        return x if x.type.dtype is dtype else n.make(op, x)

    def expr(self, *x: Expr) -> Expr:
        return x[0]

    def result_dtype(self, *inputs: DType) -> DType:
        return self.dtype

    def reference(self, *inputs: Array) -> Array:
        with np.errstate(invalid="ignore", over="ignore"):
            return cast_to(inputs[0], self.dtype, self.saturate, self.round_mode)

    def moves(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return (0,) if inputs[0].dtype is self.dtype else ()

    def is_identity(self, x: TensorType) -> bool:
        return x.dtype is self.dtype

    def keeps_magnitude(self, inputs: Sequence[TensorType]) -> bool:
        return largest_of(self.dtype) >= largest_of(inputs[0].dtype)

    def value_bounds(self, node: Node, inputs: Sequence[Values]) -> Values:
        if self.dtype is DType.BOOL:
            return of_type(self.dtype)
        if self.dtype is DType.F16:  # rounds by up to 2**-11, and has infinity behind its largest
            rounded = inputs[0].most * (1 + 2.0**-11)
            most = np.where(rounded > np.finfo(np.float16).max, np.inf, rounded)
            return replace(inputs[0], most=most, sums=())
        if self.keeps_magnitude([node.inputs[0].type]):
            return replace(inputs[0], sums=())
        return Values(
            np.full_like(inputs[0].most, largest_of(self.dtype)),
            inputs[0].mean,
            inputs[0].deviation,
        )

    def to_onnx(self) -> OnnxForm:
        more = {} if self.saturate else {"saturate": 0}
        return "Cast", {"to": onnx.helper.np_dtype_to_tensor_dtype(self.dtype.numpy), **more}, ()

    def __str__(self) -> str:
        more = "" if self.saturate else ", saturate=False"
        more += f", round_mode={self.round_mode!r}" if self.round_mode != "up" else ""
        return f"Cast(dtype={self.dtype.value!r}{more})"

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        floats = random_array(1, 2, 3, 17, low=-100.0, high=100.0)
        whole = np.arange(102).reshape(2, 3, 17)
        targets = (DType.I32, DType.I64, DType.BOOL, DType.F16)
        sources = (np.uint8, np.int32, np.int64, np.float16, np.bool_)
        return (
            *(Sample(cls(t), (floats,), label=f"f32_{t.value}") for t in targets),
            *(
                Sample(cls(DType.F32), (whole.astype(s),), label=f"{np.dtype(s).name}_f32")
                for s in sources
            ),
            Sample(cls(DType.U8), (np.abs(floats),), label="f32_u8"),
        )


_BOUNDED = (DType.F8E4M3FN, DType.F8E4M3FNUZ, DType.F8E5M2, DType.F8E5M2FNUZ, DType.F8E8M0)
_FEW_BITS = (DType.I4, DType.U4, DType.I2, DType.U2)


def cast_to(x: Array, dtype: DType, saturate: bool = True, round_mode: str = "up") -> Array:
    """Values in another element type; see Cast."""
    source = DType.from_numpy(x.dtype)
    if source.is_stored:
        x = x.astype(np.int32 if source in _FEW_BITS else np.float32)
    if dtype in _FEW_BITS:
        kept = x.astype(np.int64) & ((1 << dtype.bits) - 1)
        sign = 1 << (dtype.bits - 1) if dtype in (DType.I4, DType.I2) else 0
        return np.asarray(((kept ^ sign) - sign).astype(dtype.numpy))
    if dtype is DType.F8E8M0:
        return np.asarray(onnx.numpy_helper.to_float8e8m0(x, saturate, round_mode))
    if dtype in _BOUNDED and saturate:
        return np.asarray(onnx.numpy_helper.saturate_cast(x, dtype.numpy))
    return x.astype(dtype.numpy)
