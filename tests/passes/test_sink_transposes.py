from __future__ import annotations

import pytest

from mdlc.passes.sink_transposes import sink_transposes
from tests.passes.ir import check, graph, operators, same_values

CASES = {
    "function": (
        """
        %x: f32[1,4,5,3] = Input() "x"
        %t: f32[1,3,4,5] = Transpose((0, 3, 1, 2))(%x)
        %y: f32[1,3,4,5] = Relu()(%t)
        return y=%y
        """,
        """
        %x: f32[1,4,5,3] = Input() "x"
        %r: f32[1,4,5,3] = Relu()(%x)
        %y: f32[1,3,4,5] = Transpose((0, 3, 1, 2))(%r)
        return y=%y
        """,
    ),
    "sum of two": (
        """
        %a: f32[1,4,5,3] = Input() "a"
        %b: f32[1,4,5,3] = Input() "b"
        %s: f32[1,3,4,5] = Transpose((0, 3, 1, 2))(%a)
        %t: f32[1,3,4,5] = Transpose((0, 3, 1, 2))(%b)
        %y: f32[1,3,4,5] = Add()(%s, %t)
        return y=%y
        """,
        """
        %a: f32[1,4,5,3] = Input() "a"
        %b: f32[1,4,5,3] = Input() "b"
        %s: f32[1,4,5,3] = Add()(%a, %b)
        %y: f32[1,3,4,5] = Transpose((0, 3, 1, 2))(%s)
        return y=%y
        """,
    ),
    "concat": (
        """
        %a: f32[1,4,5,3] = Input() "a"
        %b: f32[1,4,5,2] = Input() "b"
        %s: f32[1,3,4,5] = Transpose((0, 3, 1, 2))(%a)
        %t: f32[1,2,4,5] = Transpose((0, 3, 1, 2))(%b)
        %y: f32[1,5,4,5] = Concat(1)(%s, %t)
        return y=%y
        """,
        """
        %a: f32[1,4,5,3] = Input() "a"
        %b: f32[1,4,5,2] = Input() "b"
        %c: f32[1,4,5,5] = Concat(3)(%a, %b)
        %y: f32[1,5,4,5] = Transpose((0, 3, 1, 2))(%c)
        return y=%y
        """,
    ),
    "reduction": (
        """
        %x: f32[1,4,5,3] = Input() "x"
        %t: f32[1,3,4,5] = Transpose((0, 3, 1, 2))(%x)
        %y: f32[1,3,1,1] = Reduce('mean', (2, 3))(%t)
        return y=%y
        """,
        """
        %x: f32[1,4,5,3] = Input() "x"
        %m: f32[1,1,1,3] = Reduce('mean', (1, 2))(%x)
        %y: f32[1,3,1,1] = Transpose((0, 3, 1, 2))(%m)
        return y=%y
        """,
    ),
    "border": (
        """
        %x: f32[1,4,5,3] = Input() "x"
        %t: f32[1,3,4,5] = Transpose((0, 3, 1, 2))(%x)
        %y: f32[1,3,7,6] = Pad((0, 0, 1, 0), (0, 0, 2, 1))(%t)
        return y=%y
        """,
        """
        %x: f32[1,4,5,3] = Input() "x"
        %p: f32[1,7,6,3] = Pad((0, 1, 0, 0), (0, 2, 1, 0))(%x)
        %y: f32[1,3,7,6] = Transpose((0, 3, 1, 2))(%p)
        return y=%y
        """,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_transposes_move_behind(name: str) -> None:
    check(sink_transposes, *CASES[name])


def test_constants_are_transposed_with_it() -> None:
    before = graph("""
        %x: f32[1,4,5,3] = Input() "x"
        %t: f32[1,3,4,5] = Transpose((0, 3, 1, 2))(%x)
        %c: f32[3,1,1] = Random(1)
        %y: f32[1,3,4,5] = Mul()(%t, %c)
        return y=%y
    """)
    after = sink_transposes(before)
    (y,) = after.outputs
    assert str(y.op) == "Transpose(perm=(0, 3, 1, 2))"
    assert y.inputs[0].inputs[1].shape == (1, 1, 1, 3)
    same_values(before, after)


@pytest.mark.parametrize(
    "text",
    [
        # another order on the other side
        """
        %a: f32[1,4,4,4] = Input() "a"
        %b: f32[1,4,4,4] = Input() "b"
        %s: f32[1,4,4,4] = Transpose((0, 3, 1, 2))(%a)
        %t: f32[1,4,4,4] = Transpose((0, 2, 3, 1))(%b)
        %y: f32[1,4,4,4] = Add()(%s, %t)
        return y=%y
        """,
        # one operand that is not transposed
        """
        %a: f32[1,4,4,4] = Input() "a"
        %b: f32[1,4,4,4] = Input() "b"
        %s: f32[1,4,4,4] = Transpose((0, 3, 1, 2))(%a)
        %y: f32[1,4,4,4] = Add()(%s, %b)
        return y=%y
        """,
        # axes that are dropped
        """
        %x: f32[1,4,5,3] = Input() "x"
        %t: f32[1,3,4,5] = Transpose((0, 3, 1, 2))(%x)
        %y: f32[1,3] = Reduce('mean', (2, 3), keepdims=False)(%t)
        return y=%y
        """,
    ],
)
def test_declined(text: str) -> None:
    check(sink_transposes, text, text)


@pytest.mark.parametrize("shape", ["3,1,1", "1,3,4,5", "1,1,4,1"])
def test_constants_of_any_rank_are_transposed_with_it(shape: str) -> None:
    """Found by mutation: no constant here had as many axes as the transpose."""
    before = graph(f"""
        %x: f32[1,4,5,3] = Input() "x"
        %c: f32[{shape}] = Random(1)
        %t: f32[1,3,4,5] = Transpose((0, 3, 1, 2))(%x)
        %y: f32[1,3,4,5] = Add()(%t, %c)
        return y=%y
    """)
    after = sink_transposes(before)
    assert operators(after) == ["Add", "Transpose"]
    same_values(before, after)
