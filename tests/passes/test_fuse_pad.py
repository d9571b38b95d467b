from __future__ import annotations

import pytest

from mdlc.passes.fuse_pad import fuse_pad
from tests.passes.ir import graph, operators, same_values

BEFORE = """
    %x: f32[1,3,6,6] = Input() "x"
    %p: f32[1,3,8,9] = Pad((0, 0, 1, 1), (0, 0, 1, 2){value})(%x)
    {body}
    return y=%y
"""
CONV = (
    "%w: f32[4,3,3,3] = Random(1)\n    %b: f32[4] = Random(2)\n"
    "    %y: f32[1,4,6,7] = Conv2D()(%p, %w, %b)"
)
AVERAGE = "%y: f32[1,3,6,7] = AveragePool2D(Window((3, 3)))(%p)"
MAX = "%y: f32[1,3,6,7] = MaxPool2D(Window((3, 3)))(%p)"


@pytest.mark.parametrize(
    ("body", "value", "expected"),
    [
        (CONV, "", ["Conv2D"]),
        (CONV, ", 1.0", ["Pad", "Conv2D"]),
        (AVERAGE, "", ["AveragePool2D"]),
        (MAX, ", -inf", ["MaxPool2D"]),
        (MAX, "", ["Pad", "MaxPool2D"]),
    ],
)
def test_borders(body: str, value: str, expected: list[str]) -> None:
    before = graph(BEFORE.format(body=body, value=value))
    after = fuse_pad(before)
    assert operators(after) == expected
    same_values(before, after)


@pytest.mark.parametrize(
    ("border", "pool", "out", "expected"),
    [
        (
            "-inf",
            "MaxPool2D(window=Window(kernel=(2, 2), stride=(3, 3), ceil_mode=True))",
            "1,2,3,3",
            ["Pad", "MaxPool2D"],
        ),
        (
            "0.0",
            "AveragePool2D(window=Window(kernel=(3, 3), pads=(1, 1, 1, 1)))",
            "1,2,7,7",
            ["Pad", "AveragePool2D"],
        ),
        (
            "0.0",
            "AveragePool2D(window=Window(kernel=(3, 3), pads=(1, 1, 1, 1)), include_pad=True)",
            "1,2,7,7",
            ["AveragePool2D"],
        ),
    ],
)
def test_pooling_with_padding_of_its_own(
    border: str, pool: str, out: str, expected: list[str]
) -> None:
    before = graph(f"""
        %x: f32[1,2,4,4] = Input() "x"
        %p: f32[1,2,7,7] = Pad((0, 0, 1, 0), (0, 0, 2, 3), value={border})(%x)
        %y: f32[{out}] = {pool}(%p)
        return y=%y
    """)
    after = fuse_pad(before)
    assert operators(after) == expected
    same_values(before, after)


def test_a_window_beyond_the_border_would_count_it_otherwise() -> None:
    before = graph("""
        %x: f32[1,2,4,4] = Input() "x"
        %p: f32[1,2,6,6] = Pad((0, 0, 1, 1), (0, 0, 1, 1))(%x)
        %y: f32[1,2,2,2] = AveragePool2D(Window((4, 4), (3, 3), ceil_mode=True))(%p)
        return y=%y
    """)
    after = fuse_pad(before)
    assert operators(after) == ["Pad", "AveragePool2D"]
    same_values(before, after)


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
def test_a_border_of_the_tensors_own_elements_stays(mode: str) -> None:
    before = graph(f"""
        %x: f32[1,2,4,4] = Input() "x"
        %p: f32[1,2,6,6] = Pad((0, 0, 1, 1), (0, 0, 1, 1), mode={mode!r})(%x)
        %w: f32[3,2,3,3] = Random(1)
        %b: f32[3] = Random(2)
        %y: f32[1,3,4,4] = Conv2D()(%p, %w, %b)
        return y=%y
    """)
    after = fuse_pad(before)
    assert operators(after) == ["Pad", "Conv2D"]
    same_values(before, after)


@pytest.mark.parametrize(
    ("activation", "border", "begin", "fuses"),
    [
        ("Relu()", 0.0, 1, True),
        ("Sigmoid()", 0.0, 2, True),
        ("Clip(low=0.5, high=6.0)", 0.5, 1, True),
        ("Relu()", -1.0, 1, True),
        ("Relu()", 0.5, 1, False),  # the border may win
        ("Tanh()", 0.0, 1, False),
        ("Relu()", 0.0, 3, False),  # the first window sees nothing but the border
    ],
)
def test_a_border_that_never_wins_goes_into_max_pooling(
    activation: str, border: float, begin: int, fuses: bool
) -> None:
    size = 7 + begin
    out = (size - 3) // 2 + 1
    before = graph(f"""
        %x: f32[1,2,6,6] = Input() "x"
        %r: f32[1,2,6,6] = {activation}(%x)
        %p: f32[1,2,{size},{size}] = Pad((0, 0, {begin}, {begin}), (0, 0, 1, 1), {border})(%r)
        %y: f32[1,2,{out},{out}] = MaxPool2D(Window((3, 3), (2, 2)))(%p)
        return y=%y
    """)
    after = fuse_pad(before)
    assert ("Pad" not in operators(after)) == fuses
    same_values(before, after)


@pytest.mark.parametrize("sides", ["(0, 1, 1, 1), (0, 0, 1, 1)", "(0, 0, 1, 1), (0, 1, 1, 1)"])
def test_padded_channels_stay(sides: str) -> None:
    """Found by mutation: nothing told a border of channels from one of pixels."""
    before = graph(f"""
        %x: f32[1,3,6,6] = Input() "x"
        %p: f32[1,4,8,8] = Pad({sides})(%x)
        %y: f32[1,4,6,6] = AveragePool2D(Window((3, 3)))(%p)
        return y=%y
    """)
    after = fuse_pad(before)
    assert operators(after) == ["Pad", "AveragePool2D"]
    same_values(before, after)
