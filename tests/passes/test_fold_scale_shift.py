from __future__ import annotations

import numpy as np
import pytest

from mdlc.compiler.interpreter import evaluate
from mdlc.passes.constant_folding import fold_constants
from mdlc.passes.fold_scale_shift import fold_scale_shift
from mdlc.passes.pipeline import random_inputs
from tests.passes.ir import check, graph, operators, same_values

STATISTICS = """
    %s: f32[{c}] = Random(11)
    %t: f32[{c}] = Random(12)
    %m: f32[{c}] = Random(13)
    %v: f32[{c}] = Full(0.7)
"""


@pytest.mark.parametrize(
    ("name", "body", "out"),
    [
        (
            "Conv2D",
            "%w: f32[6,4,3,3] = Random(1)\n%b: f32[6] = Random(2)\n"
            "%c: f32[1,6,8,8] = Conv2D(pads=(1, 1, 1, 1))(%x, %w, %b)",
            "1,6,8,8",
        ),
        (
            "Conv2D",
            "%w: f32[6,2,3,3] = Random(1)\n%b: f32[6] = Random(2)\n"
            "%c: f32[1,6,6,6] = Conv2D(groups=2)(%x, %w, %b)",
            "1,6,6,6",
        ),
        (
            "ConvTranspose2D",
            "%w: f32[4,3,2,2] = Random(1)\n%b: f32[6] = Random(2)\n"
            "%c: f32[1,6,16,16] = ConvTranspose2D(stride=(2, 2), groups=2)(%x, %w, %b)",
            "1,6,16,16",
        ),
    ],
)
def test_batch_norm_behind(name: str, body: str, out: str) -> None:
    before = graph(
        '%x: f32[1,4,8,8] = Input() "x"\n'
        + body
        + STATISTICS.format(c=6).replace("\n    ", "\n")
        + f"%y: f32[{out}] = BatchNormalization()(%c, %s, %t, %m, %v)\nreturn y=%y"
    )
    after = fold_scale_shift(before)
    assert operators(after) == [name]
    same_values(before, after)


def test_batch_norm_behind_dense() -> None:
    before = graph(
        '%x: f32[2,5] = Input() "x"\n%w: f32[6,5] = Random(1)\n%b: f32[6] = Random(2)\n'
        "%c: f32[2,6] = Dense()(%x, %w, %b)"
        + STATISTICS.format(c=6).replace("\n    ", "\n")
        + "%y: f32[2,6] = BatchNormalization()(%c, %s, %t, %m, %v)\nreturn y=%y"
    )
    after = fold_scale_shift(before)
    assert operators(after) == ["Dense"]
    same_values(before, after)


BEFORE_CONV = """
    %x: f32[1,3,8,8] = Input() "x"
    %k: f32[3,1,1] = Random(5)
    %a: f32[1,3,8,8] = {op}()(%x, %k)
    %w: f32[6,3,3,3] = Random(1)
    %b: f32[6] = Random(2)
    %y: f32[1,6,{size},{size}] = Conv2D(pads=({pad}, {pad}, {pad}, {pad}))(%a, %w, %b)
    return y=%y
"""


@pytest.mark.parametrize(
    ("op", "pad", "expected"),
    [
        ("Mul", 0, ["Conv2D"]),
        ("Mul", 1, ["Conv2D"]),
        ("Add", 0, ["Conv2D"]),
        ("Add", 1, ["Add", "Conv2D"]),  # zeros of the padding would be shifted
    ],
)
def test_before_a_convolution(op: str, pad: int, expected: list[str]) -> None:
    before = graph(BEFORE_CONV.format(op=op, pad=pad, size=6 + 2 * pad))
    after = fold_scale_shift(before)
    assert operators(after) == expected
    same_values(before, after)


def test_a_convolution_with_two_users_stays() -> None:
    before = graph("""
        %x: f32[1,3,4,4] = Input() "x"
        %w: f32[3,3,1,1] = Random(1)
        %b: f32[3] = Random(2)
        %c: f32[1,3,4,4] = Conv2D()(%x, %w, %b)
        %k: f32[3,1,1] = Random(3)
        %y: f32[1,3,4,4] = Mul()(%c, %k)
        return y=%y, z=%c
    """)
    assert operators(fold_scale_shift(before)) == ["Conv2D", "Mul"]


def test_a_factor_per_pixel_stays() -> None:
    before = graph("""
        %x: f32[1,3,4,4] = Input() "x"
        %w: f32[3,3,1,1] = Random(1)
        %b: f32[3] = Random(2)
        %c: f32[1,3,4,4] = Conv2D()(%x, %w, %b)
        %k: f32[1,1,4,4] = Random(3)
        %y: f32[1,3,4,4] = Mul()(%c, %k)
        return y=%y
    """)
    assert operators(fold_scale_shift(before)) == ["Conv2D", "Mul"]


def test_sum_then_product_reaches_the_weights() -> None:
    before = graph("""
        %x: f32[1,3,4,4] = Input() "x"
        %a: f32[] = Full(-127.0)
        %c: f32[] = Full(0.0078125)
        %s: f32[1,3,4,4] = Add()(%x, %a)
        %m: f32[1,3,4,4] = Mul()(%s, %c)
        %w: f32[2,3,1,1] = Random(1)
        %b: f32[2] = Random(2)
        %y: f32[1,2,4,4] = Conv2D()(%m, %w, %b)
        return y=%y
    """)
    after = fold_scale_shift(before)
    assert operators(after) == ["Conv2D"]
    same_values(before, after)


def test_a_bias_that_is_no_constant_stays() -> None:
    before = graph("""
        %x: f32[1,2,3,3] = Input() "x"
        %b: f32[2] = Input() "b"
        %k: f32[] = Full(3.0)
        %a: f32[1,2,3,3] = Mul()(%x, %k)
        %w: f32[2,2,1,1] = Random(1)
        %c: f32[1,2,3,3] = Conv2D()(%a, %w, %b)
        %y: f32[1,2,3,3] = Mul()(%c, %k)
        return y=%y
    """)
    assert operators(fold_scale_shift(before)) == ["Mul", "Conv2D", "Mul"]


def test_the_numbers_in_the_weights() -> None:
    check(
        fold_scale_shift,
        """
        %x: f32[1,2,3,3] = Input() "x"
        %w: f32[2,2,1,1] = Constant([1.0, 2.0, 3.0, 4.0])
        %b: f32[2] = Constant([1.0, -1.0])
        %c: f32[1,2,3,3] = Conv2D()(%x, %w, %b)
        %k: f32[2,1,1] = Constant([2.0, 10.0])
        %m: f32[1,2,3,3] = Mul()(%c, %k)
        %t: f32[1,2,1,1] = Constant([0.5, 0.25])
        %y: f32[1,2,3,3] = Add()(%m, %t)
        return y=%y
        """,
        """
        %x: f32[1,2,3,3] = Input() "x"
        %w: f32[2,2,1,1] = Constant([2.0, 4.0, 30.0, 40.0])
        %b: f32[2] = Constant([2.5, -9.75])
        %y: f32[1,2,3,3] = Conv2D()(%x, %w, %b)
        return y=%y
        """,
    )


def test_a_normalisation_without_shift_goes_through_padding() -> None:
    text = """
        %x: f32[1,2,4,4] = Input() "x"
        %s: f32[2] = Constant([2.0, 3.0])
        %t: f32[2] = Full({shift})
        %m: f32[2] = Full(0.0)
        %v: f32[2] = Random(7)
        %u: f32[2] = Mul()(%v, %v)
        %n: f32[1,2,4,4] = BatchNormalization()(%x, %s, %t, %m, %u)
        %w: f32[3,2,3,3] = Random(1)
        %b: f32[3] = Random(2)
        %y: f32[1,3,4,4] = Conv2D(pads=(1, 1, 1, 1))(%n, %w, %b)
        return y=%y
    """
    for shift, expected in ((0.0, ["Conv2D"]), (0.5, ["BatchNormalization", "Conv2D"])):
        before = fold_constants(graph(text.format(shift=shift)))
        after = fold_scale_shift(before)
        assert operators(after) == expected
        same_values(before, after)


@pytest.mark.parametrize(
    ("attributes", "more", "kept"),
    [("activation=Relu()", "", "Conv2D"), ("residual=True", ", %x", "Conv2D")],
)
def test_what_has_an_epilogue_takes_no_factor(attributes: str, more: str, kept: str) -> None:
    before = graph(f"""
        %x: f32[1,3,4,4] = Input() "x"
        %w: f32[3,3,1,1] = Random(1)
        %b: f32[3] = Random(2)
        %c: f32[1,3,4,4] = Conv2D({attributes})(%x, %w, %b{more})
        %k: f32[3,1,1] = Random(3)
        %y: f32[1,3,4,4] = Mul()(%c, %k)
        return y=%y
    """)
    after = fold_scale_shift(before)
    assert operators(after) == [kept, "Mul"]
    same_values(before, after)


NORMALISED = """
    %x: f32[1,6,6,2] = Input() "x"
    %k: f32[2] = Constant([0.5, {factor}])
    %m: f32[1,6,6,2] = Mul()(%x, %k)
    %t: f32[{width}2] = {shift}
    %a: f32[1,6,6,2] = Add()(%m, %t)
    %n: f32[1,2,6,6] = Transpose((0, 3, 1, 2))(%a)
    %w: f32[3,2,3,3] = Random(1)
    %b: f32[3] = Random(2)
    %y: f32[1,3,6,6] = Conv2D(pads=(1, 1, 1, 1))(%n, %w, %b)
    return y=%y
"""


@pytest.mark.parametrize(
    ("factor", "width", "shift", "expected"),
    [
        (0.25, "", "Constant([-1.0, 1.0])", ["Transpose", "Add", "Conv2D"]),
        (0.25, "", "Full(0.0)", ["Transpose", "Conv2D"]),
        # 1 / 0: the product must stay; a sum per column does not go through the transpose.
        (0.0, "", "Constant([-1.0, 1.0])", ["Transpose", "Mul", "Add", "Conv2D"]),
        (0.25, "6,", "Random(5)", ["Mul", "Add", "Transpose", "Conv2D"]),
    ],
)
def test_normalisation_of_a_transposed_picture_before_padding(
    factor: float, width: str, shift: str, expected: list[str]
) -> None:
    before = graph(NORMALISED.format(factor=factor, width=width, shift=shift))
    after = fold_scale_shift(before)
    assert operators(after) == expected
    same_values(before, after)


@pytest.mark.parametrize(("op", "expected"), [("Mul", []), ("Add", ["Add"])])
@pytest.mark.parametrize("groups", [1, 2])
def test_before_a_transposed_convolution(op: str, expected: list[str], groups: int) -> None:
    before = graph(f"""
        %x: f32[1,4,5,5] = Input() "x"
        %k: f32[4,1,1] = Random(5)
        %a: f32[1,4,5,5] = {op}()(%x, %k)
        %w: f32[4,3,3,3] = Random(1)
        %b: f32[{3 * groups}] = Random(2)
        %y: f32[1,{3 * groups},11,11] = ConvTranspose2D(stride=(2, 2), groups={groups})(%a, %w, %b)
        return y=%y
    """)
    after = fold_scale_shift(before)
    assert operators(after) == [*expected, "ConvTranspose2D"]
    same_values(before, after)


def test_a_name_stands_for_the_models_own_tensor() -> None:
    """`mdlc verify` compares a layer with the tensor whose name it carries."""
    text = NORMALISED.format(factor=0.25, width="", shift="Constant([-1.0, 1.0])")
    for op in ("Mul()(%x, %k)", "Add()(%m, %t)", "Transpose((0, 3, 1, 2))(%a)"):
        text = text.replace(op, f'{op} "{op[:3]}"')
    before = graph(text)
    after = fold_scale_shift(before)
    inputs = random_inputs(before)
    original = {n.name: value for n, value in evaluate(before, inputs).items() if n.name}
    for node, value in evaluate(after, inputs).items():
        if node.name:
            np.testing.assert_allclose(value, original[node.name], rtol=1e-4, atol=1e-5)
