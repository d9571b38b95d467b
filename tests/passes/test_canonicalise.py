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


INNER = """
        %c: f32[] = Full({divisor})
        %d: f32[8] = Div()(%x, %c)
        %e: f32[8] = Erf()(%d)
        %one: f32[] = Full(1.0)
        %half: f32[] = Full(0.5)
        %a: f32[8] = Add()(%e, %one)
"""


@pytest.mark.parametrize(
    "outer",
    [
        "%m: f32[8] = Mul()(%x, %a)\n        %y: f32[8] = Mul()(%m, %half)",
        "%m: f32[8] = Mul()(%x, %half)\n        %y: f32[8] = Mul()(%m, %a)",
        "%m: f32[8] = Mul()(%half, %a)\n        %y: f32[8] = Mul()(%m, %x)",
    ],
)
@pytest.mark.parametrize(("divisor", "found"), [(1.4142135381698608, True), (1.5, False)])
def test_gelu_spelled_out(outer: str, divisor: float, found: bool) -> None:
    text = f'\n        %x: f32[8] = Input() "x"{INNER.format(divisor=divisor)}        {outer}\n'
    before = graph(text + "        return y=%y")
    after = canonicalise(before)
    assert (operators(after) == ["Gelu"]) == found
    same_values(before, after)


def test_hard_swish_that_broadcasts_is_none() -> None:
    before = graph("""
        %x: f32[3] = Input() "x"
        %three: f32[] = Full(3.0)
        %a: f32[3] = Add()(%x, %three)
        %k: f32[3] = Clip(low=0.0, high=6.0)(%a)
        %m: f32[3] = Mul()(%x, %k)
        %s: f32[2,1] = Full(0.1666666716337204)
        %y: f32[2,3] = Mul()(%m, %s)
        return y=%y
    """)
    after = canonicalise(before)
    assert operators(after) == ["Add", "Clip", "Mul", "Mul"]
    same_values(before, after)


def test_hard_sigmoid_that_broadcasts_is_none() -> None:
    before = graph("""
        %x: f32[3] = Input() "x"
        %three: f32[2,1] = Full(3.0)
        %a: f32[2,3] = Add()(%x, %three)
        %k: f32[2,3] = Clip(low=0.0, high=6.0)(%a)
        %s: f32[] = Full(0.1666666716337204)
        %y: f32[2,3] = Mul()(%k, %s)
        return y=%y
    """)
    after = canonicalise(before)
    assert operators(after) == ["Add", "Clip", "Mul"]
    same_values(before, after)


@pytest.mark.parametrize("divisor", [0.0, 1e-40, 3e38])
def test_a_division_whose_inverse_overflows_stays(divisor: float) -> None:
    before = graph(f"""
        %x: f32[4] = Input() "x"
        %zero: f32[4] = Constant([0.0, 1.0, 2.0, 3.0])
        %m: f32[4] = Mul()(%x, %zero)
        %c: f32[] = Full({divisor})
        %y: f32[4] = Div()(%m, %c)
        return y=%y
    """)
    assert operators(canonicalise(before)) == ["Mul", "Div"]


@pytest.mark.parametrize(
    ("inner", "outer", "merged"),
    [
        ("Clip(low=-1.0, high=1.0)", "Clip(low=0.0, high=6.0)", "Clip(low=0.0, high=1.0)"),
        ("Clip(low=0.0, high=6.0)", "Relu()", "Clip(low=0.0, high=6.0)"),
        ("Relu()", "Clip(high=6.0)", "Clip(low=0.0, high=6.0)"),
        ("Clip(low=0.5, high=0.75)", "Clip(low=-1.0, high=0.25)", "Clip(low=0.25, high=0.25)"),
        ("Relu()", "Relu()", "Relu()"),
    ],
)
def test_bounds_merge(inner: str, outer: str, merged: str) -> None:
    check(
        canonicalise,
        f"""
        %x: f32[9] = Input() "x"
        %a: f32[9] = {inner}(%x)
        %b: f32[9] = {outer}(%a)
        return y=%b
        """,
        f"""
        %x: f32[9] = Input() "x"
        %b: f32[9] = {merged}(%x)
        return y=%b
        """,
    )


def test_transposes_that_do_not_commute_merge_in_the_right_order() -> None:
    check(
        canonicalise,
        """
        %x: f32[2,3,4] = Input() "x"
        %a: f32[3,4,2] = Transpose((1, 2, 0))(%x)
        %b: f32[4,3,2] = Transpose((1, 0, 2))(%a)
        return y=%b
        """,
        """
        %x: f32[2,3,4] = Input() "x"
        %b: f32[4,3,2] = Transpose((2, 1, 0))(%x)
        return y=%b
        """,
    )


@pytest.mark.parametrize(
    "operator",
    [
        "Slice((3, 0), (4, 3), (-1, 1))",
        "Resize((4, 3), (1.0, 1.0), mode='linear', coordinates='tf_crop_and_resize', "
        "roi=(0.25, 0.0, 0.75, 1.0))",
        "Transpose((1, 0))",
    ],
)
def test_an_operator_that_keeps_the_shape_but_not_the_elements_stays(operator: str) -> None:
    shape = "4,4" if operator.startswith("Transpose") else "4,3"
    before = graph(f"""
        %x: f32[{shape}] = Input() "x"
        %y: f32[{shape}] = {operator}(%x)
        return y=%y
    """)
    after = canonicalise(before)
    assert operators(after) == [operator.split("(")[0]]
    same_values(before, after)


@pytest.mark.parametrize(("shift", "high", "divisor"), [(2, 6, 6), (3, 5, 6), (3, 6, 5)])
def test_other_constants_are_no_hard_swish(shift: int, high: int, divisor: int) -> None:
    before = graph(f"""
        %x: f32[9] = Input() "x"
        %t: f32[] = Full({shift}.0)
        %a: f32[9] = Add()(%x, %t)
        %k: f32[9] = Clip(low=0.0, high={high}.0)(%a)
        %m: f32[9] = Mul()(%x, %k)
        %s: f32[] = Full({divisor}.0)
        %y: f32[9] = Div()(%m, %s)
        return y=%y
    """)
    after = canonicalise(before)
    assert operators(after) == ["Add", "Clip", "Mul", "Mul"]
    same_values(before, after)
