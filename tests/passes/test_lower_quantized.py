"""DequantizeLinear, operator, QuantizeLinear as one integer operator; the same values."""

from __future__ import annotations

import numpy as np
import pytest

from mdlc.compiler.interpreter import run
from mdlc.compiler.ir import Graph
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.rewrite import Budget
from mdlc.passes.lower_quantized import lower_quantized, reasons
from tests.passes.ir import graph, operators

HEAD = """
    %x: i8[1,4,6,6] = Input() "x"
    %s: f32[] = Full(0.05)
    %z: i8[] = Full(3)
    %t: f32[] = Full(0.11)
    %u: i8[] = Full(-7)
    %f: f32[1,4,6,6] = DequantizeLinear()(%x, %s, %z)
"""


def net(body: str, shape: str = "1,4,6,6") -> str:
    return f"{HEAD}{body}\n    %q: i8[{shape}] = QuantizeLinear()(%y, %t, %u)\n    return out=%q"


def compare(text: str, expected: list[str], steps: int = 1) -> None:
    """The operators that are left, and integers that differ by at most one step, seldom."""
    before = graph(text)
    after = lower_quantized(before)
    assert operators(after) == expected
    values = np.random.default_rng(1).integers(-128, 127, before.inputs[0].shape, np.int8)
    wanted = run(before, {"x": values})
    for name, found in run(after, {"x": values}).items():
        assert found.dtype == wanted[name].dtype
        apart = np.abs(found.astype(int) - wanted[name].astype(int))
        assert apart.max() <= steps
        # Halves round up here and to even there; no tensor is made of halves.
        assert (apart > 0).mean() < 0.02 * max(steps, 1)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("%y: f32[1,4,6,6] = Relu()(%f)", ["Lookup"]),
        ("%y: f32[1,4,6,6] = HardSwish()(%f)", ["Lookup"]),
        (
            "%g: f32[1,4,6,6] = Sigmoid()(%f)\n    %y: f32[1,4,6,6] = Mul()(%f, %g)",
            ["Lookup"],
        ),
        ("%c: f32[] = Full(1.5)\n    %y: f32[1,4,6,6] = Add()(%f, %c)", ["Lookup"]),
        ("%y: f32[1,4,6,6] = Add()(%f, %f)", ["QuantizedAdd"]),
        (
            "%a: f32[1,4,6,6] = Add()(%f, %f)\n    %y: f32[1,4,6,6] = Clip(0.0, 6.0)(%a)",
            ["QuantizedAdd"],
        ),
        ("%y: f32[1,4,6,6] = Transpose((0, 1, 3, 2))(%f)", ["Transpose", "Requantize"]),
        (
            "%p: f32[1,4,8,8] = Pad((0, 0, 1, 1), (0, 0, 1, 1))(%f)\n"
            "    %y: f32[1,4,6,6] = AveragePool2D(Window((3, 3)))(%p)",
            ["DequantizeLinear", "Pad", "AveragePool2D", "QuantizeLinear"],
        ),
        (
            "%y: f32[1,4,6,6] = AveragePool2D(Window((3, 3), (1, 1), (1, 1, 1, 1)))(%f)",
            ["QuantizedAveragePool2D"],
        ),
        ("%y: f32[1,4,6,6] = Softmax(1)(%f)", ["QuantizedSoftmax"]),
        ("%y: f32[1,4,6,6] = Softmax(3)(%f)", ["QuantizedSoftmax"]),
        (
            "%y: f32[1,4,6,6] = Softmax(1, True)(%f)",
            ["DequantizeLinear", "Softmax", "QuantizeLinear"],
        ),
    ],
    ids=["relu", "hard_swish", "silu", "shift", "add", "add_clip", "transpose", "float", "average",
         "softmax", "softmax_rows", "log_softmax"],
)  # fmt: skip
def test_without_weights(body: str, expected: list[str]) -> None:
    compare(net(body), expected)


@pytest.mark.parametrize("keepdims", [True, False])
def test_global_mean(keepdims: bool) -> None:
    shape = "1,4,1,1" if keepdims else "1,4"
    body = f"%y: f32[{shape}] = Reduce('mean', (2, 3), {keepdims})(%f)"
    expected = ["QuantizedAveragePool2D"] + ["Reshape"] * (not keepdims)
    compare(net(body, shape), expected)


def test_tables_are_exact() -> None:
    """Every one of the 256 values, against the float operators and QuantizeLinear."""
    text = net("%y: f32[1,4,8,8] = Sigmoid()(%f)", "1,4,8,8").replace("1,4,6,6", "1,4,8,8")
    before, values = graph(text), np.arange(-128, 128, dtype=np.int8).reshape(1, 4, 8, 8)
    after = lower_quantized(before)
    assert operators(after) == ["Lookup"]
    np.testing.assert_array_equal(
        run(after, {"x": values})["out"], run(before, {"x": values})["out"]
    )


def test_movement_between_equal_scales_needs_no_arithmetic() -> None:
    text = (
        HEAD
        + """
        %r: f32[1,144] = Reshape((1, 144))(%f)
        %q: i8[1,144] = QuantizeLinear()(%r, %s, %z)
        return out=%q
    """
    )
    compare(text, ["Reshape"], 0)


def test_bytes_shifted_to_the_middle_are_the_same_bytes() -> None:
    """u8 - 128 in i8, or in u8 with the zero point 128: no arithmetic in the second case."""
    text = """
        %x: u8[1,4,4,3] = Input() "x"
        %f: f32[1,4,4,3] = Cast(dtype='f32')(%x)
        %c: f32[] = Full(-128.0)
        %y: f32[1,4,4,3] = Add()(%f, %c)
        %s: f32[] = Full(1.0)
        %z: u8[] = Full(128)
        %q: u8[1,4,4,3] = QuantizeLinear()(%y, %s, %z)
        return out=%q
    """
    after = lower_quantized(graph(text))
    assert operators(after) == []
    assert after.outputs == after.inputs


def test_concat_brings_its_inputs_to_its_scale() -> None:
    text = (
        HEAD
        + """
        %g: i8[1,4,6,6] = QuantizeLinear()(%f, %t, %u)
        %h: f32[1,4,6,6] = DequantizeLinear()(%g, %t, %u)
        %y: f32[1,8,6,6] = Concat(1)(%f, %h)
        %q: i8[1,8,6,6] = QuantizeLinear()(%y, %t, %u)
        return out=%q
    """
    )
    # One Requantize would do for both uses; common subexpressions see to that later.
    compare(text, ["Requantize", "Requantize", "Concat"])


def test_what_is_read_in_float_too_stays() -> None:
    text = (
        HEAD
        + """
        %a: f32[1,4,6,6] = Add()(%f, %f)
        %q: i8[1,4,6,6] = QuantizeLinear()(%a, %t, %u)
        %e: f32[1,4,6,6] = Exp()(%a)
        return out=%q, more=%e
    """
    )
    budget = Budget(traced=True)
    after = lower_quantized(graph(text), budget=budget)
    assert operators(after) == ["DequantizeLinear", "Add", "QuantizeLinear", "Exp"]
    assert list(reasons(budget).values()) == ["others read the value in float"]


def test_a_budget_of_no_rewrites_changes_nothing() -> None:
    before = graph(net("%y: f32[1,4,6,6] = Add()(%f, %f)"))
    after = lower_quantized(before, budget=Budget(0))
    assert operators(after) == ["DequantizeLinear", "Add", "QuantizeLinear"]


PRODUCT = """
    %x: i8[1,4,6,6] = Input() "x"
    %s: f32[] = Full(0.05)
    %z: i8[] = Full(3)
    %f: f32[1,4,6,6] = DequantizeLinear()(%x, %s, %z)
    %v: i8[5,4,3,3] = Full(7)
    %vs: f32[5] = Random(1)
    %vz: i8[5] = Full(0)
    %w: f32[5,4,3,3] = DequantizeLinear(axis=0)(%v, %vs, %vz)
    %b: f32[5] = Random(2)
    %y: f32[1,5,4,4] = Conv2D()(%f, %w, %b) "y"
"""


def positive(before: Graph) -> Graph:
    """Random scales made positive."""
    return before.rebuild(
        lambda _, new: (
            constant(np.abs(new.constant) / 100)  # type: ignore[operator]
            if new.shape == (5,) and new.type.dtype.is_float and new.constant is not None
            else new
        )
    )


def test_a_product_read_in_float_keeps_its_32_bits() -> None:
    before = positive(graph(PRODUCT + '    %t: f32[1,5,4,4] = Tanh()(%y) "t"\n    return out=%t\n'))
    after = lower_quantized(before)
    assert operators(after) == ["QuantizedConv2D", "DequantizeLinear", "Tanh"]
    values = np.random.default_rng(1).integers(-128, 127, (1, 4, 6, 6), np.int8)
    wanted, found = run(before, {"x": values})["out"], run(after, {"x": values})["out"]
    # The bias is rounded to the step of an accumulator, nothing else is.
    np.testing.assert_allclose(found, wanted, atol=5e-4)


def test_a_product_that_is_rounded_has_8_bits() -> None:
    tail = """
    %r: f32[1,5,4,4] = Relu()(%y)
    %t: f32[] = Full(0.02)
    %q: i8[1,5,4,4] = QuantizeLinear()(%r, %t, %z)
    return out=%q
    """
    after = lower_quantized(positive(graph(PRODUCT + tail)))
    assert operators(after) == ["QuantizedConv2D"]


def test_weights_read_in_float_are_widened() -> None:
    text = PRODUCT.replace("DequantizeLinear()(%x, %s, %z)", "Cast(dtype='f32')(%i)").replace(
        '%x: i8[1,4,6,6] = Input() "x"', '%i: i32[1,4,6,6] = Input() "x"'
    )
    before = positive(graph(text + "    return out=%y\n"))
    after = lower_quantized(before)
    assert operators(after) == ["Cast", "Conv2D"]
