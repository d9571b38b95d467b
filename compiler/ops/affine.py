"""Affine: alpha * x + beta, an activation of recurrent layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdlc.compiler.expr import Expr
from mdlc.compiler.op import Elementwise, OnnxForm, Sample, unary_sample
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Affine(Elementwise):
    """y = alpha * x + beta. Source: ONNX specification, activations of LSTM, GRU and RNN."""

    alpha: float = 1.0
    beta: float = 0.0

    def expr(self, *x: Expr) -> Expr:
        return x[0] * self.alpha + self.beta

    def reference(self, *inputs: Array) -> Array:
        return np.asarray(inputs[0] * self.alpha + self.beta, inputs[0].dtype)

    def to_onnx(self) -> OnnxForm | None:
        return None

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        return (unary_sample(cls(0.5, -0.25)),)
