"""Log: log(x)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mdlc.compiler.expr import Expr, call
from mdlc.compiler.op import Elementwise, Sample, unary_sample
from mdlc.compiler.types import Array


@dataclass(frozen=True)
class Log(Elementwise):
    """y = log(x). Source: ONNX specification, operator Log."""

    onnx: ClassVar[tuple[str, ...]] = ("Log",)

    def expr(self, *x: Expr) -> Expr:
        return call("log", x[0])

    def reference(self, *inputs: Array) -> Array:
        result: Array = np.log(inputs[0])
        return result

    @classmethod
    def samples(cls) -> Sequence[Sample]:
        return (unary_sample(cls(), low=0.01, high=9.0),)
