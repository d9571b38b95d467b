from __future__ import annotations

from mdlc.passes.channel_shuffle import fold_channel_shuffle
from tests.passes.ir import check, graph, operators, same_values


def test_shuffle_is_recognised() -> None:
    check(
        fold_channel_shuffle,
        """
        %x: f32[1,6,4,4] = Input() "x"
        %a: f32[1,2,3,4,4] = Reshape((1, 2, 3, 4, 4))(%x)
        %b: f32[1,3,2,4,4] = Transpose((0, 2, 1, 3, 4))(%a)
        %y: f32[1,6,4,4] = Reshape((1, 6, 4, 4))(%b)
        return y=%y
        """,
        """
        %x: f32[1,6,4,4] = Input() "x"
        %y: f32[1,6,4,4] = ChannelShuffle(groups=2)(%x)
        return y=%y
        """,
    )


def test_every_other_channel_is_a_slice() -> None:
    before = graph("""
        %x: f32[1,6,4,4] = Input() "x"
        %a: f32[3,2,16] = Reshape((3, 2, 16))(%x)
        %b: f32[2,3,16] = Transpose((1, 0, 2))(%a)
        %c: f32[2,1,3,4,4] = Reshape((2, 1, 3, 4, 4))(%b)
        %i: i64[] = Constant(1)
        %y: f32[1,3,4,4] = Gather()(%c, %i)
        return y=%y
    """)
    after = fold_channel_shuffle(before)
    assert operators(after) == ["Slice"]
    same_values(before, after)


def test_shuffle_goes_into_the_filters_around() -> None:
    for order in ("before", "after"):
        shuffled, convolved = ("%x", "%s") if order == "before" else ("%c", "%x")
        lines = [
            f"%s: f32[1,6,4,4] = ChannelShuffle(3)({shuffled})",
            f"%c: f32[1,6,4,4] = Conv2D(activation=Relu())({convolved}, %w, %b)",
        ]
        lines = lines if order == "before" else lines[::-1]
        result = "%c" if order == "before" else "%s"
        before = graph(
            '%x: f32[1,6,4,4] = Input() "x"\n%w: f32[6,6,1,1] = Random(1)\n'
            "%b: f32[6] = Random(2)\n" + "\n".join(lines) + f"\nreturn y={result}"
        )
        after = fold_channel_shuffle(before)
        assert operators(after) == ["Conv2D"]
        same_values(before, after)


def test_half_of_a_shuffled_concat() -> None:
    before = graph("""
        %a: f32[1,4,3,3] = Input() "a"
        %b: f32[1,4,3,3] = Input() "b"
        %c: f32[1,8,3,3] = Concat(1)(%a, %b)
        %s: f32[1,8,3,3] = ChannelShuffle(2)(%c)
        %h: f32[1,4,3,3] = Slice((0, 4, 0, 0), (1, 4, 3, 3), (1, 1, 1, 1))(%s)
        %w: f32[5,4,1,1] = Random(1)
        %k: f32[5] = Random(2)
        %y: f32[1,5,3,3] = Conv2D()(%h, %w, %k)
        return y=%y
    """)
    after = fold_channel_shuffle(before)
    assert operators(after) == ["Slice", "Slice", "Concat", "Conv2D"]
    same_values(before, after)
