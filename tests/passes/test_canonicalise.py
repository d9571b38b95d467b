from __future__ import annotations

import pytest

from mdlc.passes.canonicalise import canonicalise, lower_batch_norm
from tests.passes.ir import check, graph, operators, same_values

UNARY = """
    %x: f32[1,4,3,3] = Input() "x"
    {body}
    return y=%y
"""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("%y: f32[1,4,3,3] = Reshape((1, 4, 3, 3))(%x)", []),
        ("%y: f32[1,4,3,3] = Transpose((0, 1, 2, 3))(%x)", []),
        ("%c: f32[] = Full(0.0)\n    %y: f32[1,4,3,3] = Add()(%x, %c)", []),
        ("%c: f32[] = Full(1.0)\n    %y: f32[1,4,3,3] = Mul()(%c, %x)", []),
        ("%c: f32[] = Full(4.0)\n    %y: f32[1,4,3,3] = Div()(%x, %c)", ["Mul"]),
        ("%c: f32[] = Full(4.0)\n    %y: f32[1,4,3,3] = Sub()(%x, %c)", ["Add"]),
        ("%c: f32[] = Full(6.0)\n    %y: f32[1,4,3,3] = Min()(%x, %c)", ["Clip"]),
        ("%c: f32[] = Full(0.0)\n    %y: f32[1,4,3,3] = Max()(%x, %c)", ["Relu"]),
        ("%y: f32[1,4,3,3] = Clip(low=0.0)(%x)", ["Relu"]),
        ("%c: f32[] = Full(2.0)\n    %y: f32[1,4,3,3] = Pow()(%x, %c)", ["Mul"]),
        ("%s: f32[1,4,3,3] = Sigmoid()(%x)\n    %y: f32[1,4,3,3] = Mul()(%x, %s)", ["Silu"]),
        (
            "%s: f32[1,4,3,3] = Softplus()(%x)\n    %t: f32[1,4,3,3] = Tanh()(%s)\n"
            "    %y: f32[1,4,3,3] = Mul()(%x, %t)",
            ["Mish"],
        ),
        (
            "%s: f32[1,4,3,3] = HardSigmoid(alpha=0.16666667163372040)(%x)\n"
            "    %y: f32[1,4,3,3] = Mul()(%x, %s)",
            ["HardSwish"],
        ),
        (
            "%t: f32[] = Full(3.0)\n    %a: f32[1,4,3,3] = Add()(%x, %t)\n"
            "    %k: f32[1,4,3,3] = Clip(low=0.0, high=6.0)(%a)\n"
            "    %m: f32[1,4,3,3] = Mul()(%x, %k)\n    %s: f32[] = Full(6.0)\n"
            "    %y: f32[1,4,3,3] = Div()(%m, %s)",
            ["HardSwish"],
        ),
    ],
)
def test_forms(body: str, expected: list[str]) -> None:
    before = graph(UNARY.format(body=body))
    after = canonicalise(before)
    assert operators(after) == expected
    same_values(before, after)


def test_integer_division_stays() -> None:
    before = graph("""
        %x: i64[4] = Input() "x"
        %c: i64[] = Full(3)
        %y: i64[4] = Div()(%x, %c)
        return y=%y
    """)
    assert operators(canonicalise(before)) == ["Div"]


def test_a_broadcasting_sum_with_zero_stays() -> None:
    before = graph("""
        %x: f32[1,3] = Input() "x"
        %c: f32[2,3] = Full(0.0)
        %y: f32[2,3] = Add()(%x, %c)
        return y=%y
    """)
    assert operators(canonicalise(before)) == ["Add"]


def test_transposes_merge_and_cancel() -> None:
    check(
        canonicalise,
        """
        %x: f32[1,4,3,5] = Input() "x"
        %a: f32[1,3,5,4] = Transpose((0, 2, 3, 1))(%x)
        %b: f32[1,4,3,5] = Transpose((0, 3, 1, 2))(%a)
        return y=%b
        """,
        """
        %x: f32[1,4,3,5] = Input() "x"
        return y=%x
        """,
    )


def test_reduction_keeps_its_axes() -> None:
    check(
        canonicalise,
        """
        %x: f32[1,4,3,5] = Input() "x"
        %a: f32[1,4] = Reduce(kind='mean', axes=(2, 3), keepdims=False)(%x)
        return y=%a
        """,
        """
        %x: f32[1,4,3,5] = Input() "x"
        %a: f32[1,4,1,1] = Reduce(kind='mean', axes=(2, 3))(%x)
        %b: f32[1,4] = Reshape(shape=(1, 4))(%a)
        return y=%b
        """,
    )


def test_batch_norm_alone_becomes_product_and_sum() -> None:
    before = graph("""
        %x: f32[2,3,4,4] = Input() "x"
        %s: f32[3] = Random(1)
        %b: f32[3] = Random(2)
        %m: f32[3] = Random(3)
        %v: f32[3] = Full(0.5)
        %y: f32[2,3,4,4] = BatchNormalization()(%x, %s, %b, %m, %v)
        return y=%y
    """)
    after = lower_batch_norm(before)
    assert operators(after) == ["Mul", "Add"]
    same_values(before, after)
