"""Sums of 8-bit tensors in the epilogue of convolutions: the same integers."""

from __future__ import annotations

import numpy as np
import pytest

from mdlc.compiler.fixed_point import fixed_point
from mdlc.compiler.interpreter import run
from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.input import graph_input
from mdlc.compiler.ops.quantized_add import QuantizedAdd
from mdlc.compiler.ops.quantized_conv2d import QuantizedConv2D
from mdlc.compiler.types import DType
from mdlc.passes.fuse_quantized_sum import fuse_quantized_sum
from tests.passes.ir import operators


def conv(x: Node, name: str, zero: int = 4, **attributes: object) -> Node:
    op = QuantizedConv2D(y_zero=zero, **attributes)  # type: ignore[arg-type]
    rng = np.random.default_rng(len(name))
    weights = rng.integers(-127, 127, (8, 8 // op.groups, 1, 1), np.int8, endpoint=True)
    operands = weights, np.zeros(8, np.int32), *fixed_point(np.full(8, 0.002))
    return make(op, x, *(constant(v) for v in operands[: op.operands - 1]), name=name)


def fused(result: Node, x: Node) -> Graph:
    """The graph after the pass, whose values are what they were."""
    before = Graph((x,), (result,), ("y",))
    after = fuse_quantized_sum(before)
    values = np.random.default_rng(0).integers(-128, 127, x.shape, np.int8, endpoint=True)
    np.testing.assert_array_equal(*(run(g, {"x": values})["y"] for g in (before, after)))
    return after


X = graph_input("x", (1, 8, 5, 5), DType.I8)
SUM = QuantizedAdd(0.7, 1.2, 4, -3, 9, 9, 120)


@pytest.mark.parametrize("first", [True, False])
def test_either_operand_may_be_the_convolution(first: bool) -> None:
    c = conv(X, "c")
    result = make(SUM, c, X) if first else make(SUM.turned(), X, c)
    after = fused(result, X)
    assert operators(after) == ["QuantizedConv2D"]
    assert after.outputs[0].inputs[-1] is after.inputs[0]


def test_of_two_convolutions_the_later_takes_the_sum() -> None:
    c = conv(X, "first")
    d = conv(c, "second", -3)
    both = make(SUM, conv(X, "other"), d)
    after = fused(both, X)
    assert operators(after).count("QuantizedConv2D") == 3
    assert "QuantizedAdd" not in operators(after)


@pytest.mark.parametrize(
    "reason", ["read elsewhere", "depthwise", "another zero point", "a constant"]
)
def test_what_stays(reason: str) -> None:
    c = conv(X, "c", 5 if "zero" in reason else 4, groups=8 if reason == "depthwise" else 1)
    other = X
    if reason == "read elsewhere":
        other = make(SUM, c, X)
    elif reason == "a constant":
        other = constant(np.ones(X.shape, np.int8))
    after = fused(make(SUM, c, other), X)
    assert "QuantizedAdd" in operators(after)
