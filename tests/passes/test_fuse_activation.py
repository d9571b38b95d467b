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


def test_a_slope_that_adds_an_axis_stays() -> None:
    before = graph("""
        %x: f32[1,1,3,3] = Input() "x"
        %w: f32[1,1,1,1] = Random(1)
        %b: f32[1] = Random(2)
        %c: f32[1,1,3,3] = Conv2D()(%x, %w, %b)
        %s: f32[1,1,1,1,1] = Full(0.25)
        %y: f32[1,1,1,3,3] = PRelu()(%c, %s)
        return y=%y
    """)
    after = fuse_activation(before)
    assert operators(after) == ["Conv2D", "PRelu"]
    same_values(before, after)


def test_slopes_stand_before_the_residual() -> None:
    before = graph("""
        %x: f32[1,4,6,6] = Input() "x"
        %w: f32[4,4,1,1] = Random(1)
        %b: f32[4] = Random(2)
        %c: f32[1,4,6,6] = Conv2D()(%x, %w, %b)
        %s: f32[1,4,6,6] = Add()(%c, %x)
        %k: f32[4,1,1] = Random(3)
        %y: f32[1,4,6,6] = PRelu()(%s, %k)
        return y=%y
    """)
    after = fuse_activation(fuse_residual(before))
    assert operators(after) == ["Conv2D"]
    assert [n.shape for n in after.outputs[0].inputs[3:]] == [(4,), (1, 4, 6, 6)]
    same_values(before, after)


@pytest.mark.parametrize("attributes", ["activation=Relu()", "residual=True"])
def test_an_epilogue_that_is_taken_takes_no_sum(attributes: str) -> None:
    more = ", %x" if "residual" in attributes else ""
    before = graph(f"""
        %x: f32[1,4,6,6] = Input() "x"
        %w: f32[4,4,1,1] = Random(1)
        %b: f32[4] = Random(2)
        %c: f32[1,4,6,6] = Conv2D({attributes})(%x, %w, %b{more})
        %y: f32[1,4,6,6] = Add()(%c, %x)
        return y=%y
    """)
    after = fuse_residual(before)
    assert operators(after) == ["Conv2D", "Add"]
    same_values(before, after)


def test_the_later_convolution_takes_the_sum_in_every_block() -> None:
    lines = ['%x0: f32[1,2,4,4] = Input() "x"', "%w: f32[2,2,1,1] = Random(1)",
             "%b: f32[2] = Random(2)"]  # fmt: skip
    for i in range(5):
        lines += [
            f'%c{i}: f32[1,2,4,4] = Conv2D()(%x{i}, %w, %b) "first{i}"',
            f'%d{i}: f32[1,2,4,4] = Conv2D(pads=(0, 0, 0, 0))(%x{i}, %w, %b) "second{i}"',
            f"%x{i + 1}: f32[1,2,4,4] = Add()(%c{i}, %d{i})",
        ]
    before = graph("\n".join([*lines, "return y=%x5"]))
    after = fuse_residual(before)
    taken = [n.inputs[-1].name for n in after.order() if getattr(n.op, "residual", False)]
    assert taken == [f"first{i}" for i in range(5)]
    same_values(before, after)
