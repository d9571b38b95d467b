"""QuantizedDense: rows of 8-bit integers times a constant matrix, rescaled in fixed point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.op import Cost, Op, Sample
from mdlc.compiler.ops.quantized_conv2d import check_operands, finish, quantized_sample
from mdlc.compiler.types import Array, DType, TensorType


@dataclass(frozen=True)
class QuantizedDense(Op):
    """y = clip(rescale(x w' + b, multiplier, shift) + y_zero, low, high).

    Inputs: x [..., K] i8 or u8, w [M, K] i8, and [M] of i32 each: b, multiplier, shift; the
    inputs and attributes mean what they do in QuantizedConv2D (x_zero is folded into b, and kept
    for passes that read it). Output: [..., M].
    """

    x_zero: int = 0
    y_zero: int = 0
    low: int = -128
    high: int = 127
    dtype: DType = DType.I8

    @property
    def operands(self) -> int:
        """Number of inputs."""
        return 3 if self.dtype is DType.I32 else 5

    def infer(self, *inputs: TensorType) -> TensorType:
        check_operands("QuantizedDense", self, inputs)
        x, w = inputs[:2]
        if x.rank < 1 or w.rank != 2 or x.shape[-1] != w.shape[1]:
            raise MdlcError(f"{x} does not multiply weights {w}")
        return TensorType((*x.shape[:-1], w.shape[0]), self.dtype)

    def reference(self, *inputs: Array) -> Array:
        x, w, b = inputs[:3]
        total = (x.astype(np.float64) @ w.T.astype(np.float64)).astype(np.int64) + b
        return finish(self, total, *inputs[3:])

    def cost(self, inputs: Sequence[TensorType], output: TensorType) -> Cost:
        return Cost(output.size * inputs[1].shape[1], sum(t.nbytes for t in inputs) + output.nbytes)

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        def sample(
            label: str, op: QuantizedDense, rows: int, depth: int, outputs: int,
            kind: type[np.integer] = np.int8,
        ) -> Sample:  # fmt: skip
            return quantized_sample(label, op, (rows, depth), (outputs, depth), kind, depth)

        return (
            sample("classifier", cls(x_zero=-7, y_zero=3), 1, 64, 10),
            sample("wide", cls(y_zero=-128), 1, 33, 257),
            sample("deep", cls(), 1, 516, 40),
            sample("batch", cls(x_zero=1), 5, 20, 24),
            sample("u8", cls(x_zero=128, y_zero=128, low=0, high=255, dtype=DType.U8), 3, 48, 33,
                   np.uint8),
            sample("raw", cls(x_zero=2, dtype=DType.I32), 2, 100, 17),
            sample("one", cls(), 1, 1, 2),
        )  # fmt: skip
