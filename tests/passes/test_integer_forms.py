"""What an operator between 8-bit tensors becomes: of movements, the text before and after."""

from __future__ import annotations

import numpy as np
import pytest

from mdlc.compiler.ir import Graph, make
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.dequantize_linear import DequantizeLinear
from mdlc.compiler.ops.input import graph_input
from mdlc.compiler.ops.quantize_linear import QuantizeLinear
from mdlc.compiler.rewrite import Budget
from mdlc.compiler.types import DType
from mdlc.passes.int9_weights import fits, pays, wide_channels
from mdlc.passes.lower_quantized import lower_quantized, reasons
from tests.passes.ir import check, graph, operators, same_values

# A movement of 8-bit values, in float and in integers. The zero point is 3 and the scale 1/2.
MOVEMENTS = {
    "MaxPool2D(Window((2, 2), (2, 2)))": ("1,2,2,2", None),
    "Transpose((0, 2, 3, 1))": ("1,4,4,2", None),
    "Tile((1, 2, 1, 1))": ("1,4,4,4", None),
    "Expand((3, 2, 4, 4))": ("3,2,4,4", None),
    "Slice((0, 1, 0, 0), (1, 1, 4, 4), (1, 1, 1, 1))": ("1,1,4,4", None),
    # What is filled in is converted as the elements are: 0 is the integer 3, and 2 is 7.
    "Pad((0, 0, 1, 1), (0, 0, 1, 1))": ("1,2,6,6", "Pad((0, 0, 1, 1), (0, 0, 1, 1), value=3.0)"),
    "Pad((0, 0, 1, 1), (0, 0, 1, 1), value=2.0)": (
        "1,2,6,6",
        "Pad((0, 0, 1, 1), (0, 0, 1, 1), value=7.0)",
    ),
}


@pytest.mark.parametrize("operator", MOVEMENTS)
def test_movements_move_integers(operator: str) -> None:
    shape, lowered = MOVEMENTS[operator]
    before = f"""
        %x: i8[1,2,4,4] = Input() "x"
        %s: f32[] = Full(0.5)
        %z: i8[] = Full(3)
        %f: f32[1,2,4,4] = DequantizeLinear()(%x, %s, %z)
        %y: f32[{shape}] = {operator}(%f)
        %q: i8[{shape}] = QuantizeLinear()(%y, %s, %z)
        return y=%q
    """
    expected = f"""
        %x: i8[1,2,4,4] = Input() "x"
        %q: i8[{shape}] = {lowered or operator}(%x)
        return y=%q
    """
    check(lower_quantized, before, expected)


def test_indices_of_a_gather_stay_indices() -> None:
    before = graph("""
        %x: i8[1,4,3,3] = Input() "x"
        %s: f32[] = Full(0.5)
        %z: i8[] = Full(3)
        %f: f32[1,4,3,3] = DequantizeLinear()(%x, %s, %z)
        %i: i64[3] = Constant([2, 0, 1])
        %y: f32[1,3,3,3] = Gather(axis=1)(%f, %i)
        %q: i8[1,3,3,3] = QuantizeLinear()(%y, %s, %z)
        return y=%q
    """)
    after = lower_quantized(before)
    assert operators(after) == ["Gather"]
    same_values(before, after)


def test_what_interpolates_beyond_its_input_stays_in_float() -> None:
    before = graph("""
        %x: i8[1,2,4,4] = Input() "x"
        %s: f32[] = Full(0.5)
        %z: i8[] = Full(3)
        %f: f32[1,2,4,4] = DequantizeLinear()(%x, %s, %z)
        %y: f32[1,2,8,8] = Resize((1, 2, 8, 8), (1.0, 1.0, 2.0, 2.0), mode='cubic')(%f)
        %q: i8[1,2,8,8] = QuantizeLinear()(%y, %s, %z)
        return y=%q
    """)
    budget = Budget(traced=True)
    after = lower_quantized(before, budget=budget)
    assert operators(after) == ["DequantizeLinear", "Resize", "QuantizeLinear"]
    assert list(reasons(budget).values()) == ["Resize has no integer form"]


# ------------------------------------------------------------------- weights of nine bits


def _convolution(groups: int, wide: int) -> Graph:
    """16 filters of uint8 weights with the zero point 30; `wide` of them need a ninth bit."""
    rng = np.random.default_rng(groups + wide)
    channels = 16 // groups if groups > 1 else 4
    w = rng.integers(0, 150, (16, channels, 3, 3)).astype(np.uint8)
    w[:wide, 0, 1, 1] = 255
    x = graph_input("x", (1, channels * groups, 6, 6), DType.I8)
    step, zero = constant(np.array(0.05, np.float32)), constant(np.array(-7, np.int8))
    weights = make(
        DequantizeLinear(0), constant(w), constant(np.full(16, 0.01, np.float32)),
        constant(np.full(16, 30, np.uint8)),
    )  # fmt: skip
    bias = constant(rng.normal(size=16).astype(np.float32))
    wide_x = make(DequantizeLinear(), x, step, zero)
    y = make(Conv2D(pads=(1, 1, 1, 1), groups=groups), wide_x, weights, bias)
    q = make(QuantizeLinear(), y, constant(np.array(0.3, np.float32)), zero)
    return Graph((x,), (q,), ("y",))


@pytest.mark.parametrize("groups", [1, 16])
@pytest.mark.parametrize(
    ("wide", "kinds"),
    [
        (0, {"QuantizedConv2D"}),
        (1, {"QuantizedConv2D", "DequantizeLinear", "Slice", "Add", "Clip", "QuantizeLinear",
             "Concat"}),
        (2, {"QuantizedConv2D", "DequantizeLinear", "Slice", "Add", "Clip", "QuantizeLinear",
             "Concat"}),
        (3, {"DequantizeLinear", "Conv2D", "QuantizeLinear"}),
    ],
)  # fmt: skip
def test_few_wide_channels_are_summed_again(groups: int, wide: int, kinds: set[str]) -> None:
    """Up to an eighth of the filters; beyond that the layer stays in float."""
    before = _convolution(groups, wide)
    after = lower_quantized(before)
    assert set(operators(after)) == kinds
    assert operators(after).count("QuantizedConv2D") == (0 if wide == 3 else 1 + (wide > 0))
    same_values(before, after, atol=1.0)  # a step, where a result lies on a half


def test_what_is_wide() -> None:
    w = np.zeros((8, 2, 1, 1), np.int32)
    assert fits(w)
    w[3, 0] = 128
    assert not fits(w)
    assert wide_channels(w) == [3]
    assert pays(w, 1)
    assert not pays(w, 2)  # groups of several filters
    w[3, 0] = 300  # two times 127 do not reach it
    assert not pays(w, 1)
    w[:2] = -129
    assert wide_channels(w) == [0, 1, 3]
