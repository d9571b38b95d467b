"""ScaledTanh: alpha * tanh(beta * x), an activation of recurrent layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise, OnnxForm, Sample, unary_sample
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class ScaledTanh(Elementwise):
    """y = alpha * tanh(beta * x). Source: ONNX specification, activations of LSTM, GRU and RNN."""

    alpha: float = 1.0
    beta: float = 1.0

    def expr(self, *x: Expr) -> Expr:
        return call("tanh", x[0] * self.beta) * self.alpha

    def reference(self, *inputs: Array) -> Array:
        return np.asarray(self.alpha * np.tanh(self.beta * inputs[0]), inputs[0].dtype)

    def to_onnx(self) -> OnnxForm | None:
        return None

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        return (unary_sample(cls(1.7, 0.6)),)
