from __future__ import annotations

import pytest

from mdlc.passes.fuse_activation import fuse_activation, fuse_residual
from tests.passes.ir import check, graph, operators, same_values

CONV = """
    %x: f32[1,3,6,6] = Input() "x"
    %w: f32[4,3,1,1] = Random(1)
    %b: f32[4] = Random(2)
    %c: f32[1,4,6,6] = Conv2D()(%x, %w, %b)
    %y: f32[1,4,6,6] = {op}(%c)
    return y=%y
"""
FUSED = """
    %x: f32[1,3,6,6] = Input() "x"
    %w: f32[4,3,1,1] = Random(1)
    %b: f32[4] = Random(2)
    %y: f32[1,4,6,6] = Conv2D(activation={op})(%x, %w, %b)
    return y=%y
"""


@pytest.mark.parametrize(
    "op", ["Relu()", "Clip(low=0.0, high=6.0)", "LeakyRelu(alpha=0.1)", "HardSwish()", "Silu()"]
)
def test_unary(op: str) -> None:
    check(fuse_activation, CONV.format(op=op), FUSED.format(op=op))


def test_prelu_with_a_slope_per_channel() -> None:
    check(
        fuse_activation,
        """
        %x: f32[1,3,6,6] = Input() "x"
        %w: f32[4,3,1,1] = Random(1)
        %b: f32[4] = Random(2)
        %c: f32[1,4,6,6] = Conv2D()(%x, %w, %b)
        %s: f32[4,1,1] = Constant([[[0.5]], [[0.25]], [[2.0]], [[1.0]]])
        %y: f32[1,4,6,6] = PRelu()(%c, %s)
        return y=%y
        """,
        """
        %x: f32[1,3,6,6] = Input() "x"
        %w: f32[4,3,1,1] = Random(1)
        %b: f32[4] = Random(2)
        %s: f32[4] = Constant([0.5, 0.25, 2.0, 1.0])
        %y: f32[1,4,6,6] = Conv2D(activation=PRelu())(%x, %w, %b, %s)
        return y=%y
        """,
    )


def test_a_cast_is_no_activation() -> None:
    before = graph("""
        %x: f32[1,3,6,6] = Input() "x"
        %w: f32[4,3,1,1] = Random(1)
        %b: f32[4] = Random(2)
        %c: f32[1,4,6,6] = Conv2D()(%x, %w, %b)
        %y: f16[1,4,6,6] = Cast(dtype='f16')(%c)
        return y=%y
    """)
    assert operators(fuse_activation(before)) == ["Conv2D", "Cast"]


def test_residual_then_relu() -> None:
    before = graph("""
        %x: f32[1,4,6,6] = Input() "x"
        %w: f32[4,4,1,1] = Random(1)
        %b: f32[4] = Random(2)
        %c: f32[1,4,6,6] = Conv2D()(%x, %w, %b)
        %s: f32[1,4,6,6] = Add()(%x, %c)
        %y: f32[1,4,6,6] = Relu()(%s)
        return y=%y
    """)
    after = fuse_activation(fuse_residual(before))
    assert operators(after) == ["Conv2D"]
    same_values(before, after)


def test_of_two_convolutions_the_later_takes_the_sum() -> None:
    before = graph("""
        %x: f32[1,4,6,6] = Input() "x"
        %w: f32[4,4,1,1] = Random(1)
        %b: f32[4] = Random(2)
        %c: f32[1,4,6,6] = Conv2D()(%x, %w, %b) "first"
        %w2: f32[4,4,1,1] = Random(3)
        %d: f32[1,4,6,6] = Conv2D()(%x, %w2, %b) "second"
        %y: f32[1,4,6,6] = Add()(%c, %d)
        return y=%y
    """)
    after = fuse_residual(before)
    assert operators(after) == ["Conv2D", "Conv2D"]
    assert after.outputs[0].inputs[-1].name == "first"
    same_values(before, after)


def test_a_broadcast_sum_is_no_residual() -> None:
    before = graph("""
        %x: f32[1,4,6,6] = Input() "x"
        %z: f32[1,4,1,1] = Input() "z"
        %w: f32[4,4,1,1] = Random(1)
        %b: f32[4] = Random(2)
        %c: f32[1,4,6,6] = Conv2D()(%x, %w, %b)
        %y: f32[1,4,6,6] = Add()(%c, %z)
        return y=%y
    """)
    assert operators(fuse_residual(before)) == ["Conv2D", "Add"]
