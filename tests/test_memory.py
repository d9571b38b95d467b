"""The memory plan: no two tensors that live at the same time share a byte."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mdlc.codegen.isa.registry import find_isa
from mdlc.codegen.plan.arena import place
from mdlc.codegen.plan.lowering import lower
from mdlc.codegen.plan.plan import ALIGNMENT, Plan
from mdlc.passes.layout import assign_layout
from tests.passes.ir import graph

RANGES = st.tuples(st.integers(-1, 30), st.integers(0, 12)).map(lambda r: (r[0], r[0] + r[1]))


@given(st.lists(st.tuples(st.integers(1, 5000), RANGES), max_size=40))
def test_live_buffers_never_overlap(items: list[tuple[int, tuple[int, int]]]) -> None:
    sizes, ranges = [size for size, _ in items], [r for _, r in items]
    offsets, total = place(sizes, ranges)
    for i, (size, (first, last)) in enumerate(items):
        assert offsets[i] % ALIGNMENT == 0
        assert offsets[i] + size <= total
        for j in range(i):
            together = ranges[j][0] <= last and first <= ranges[j][1]
            apart = offsets[i] + size <= offsets[j] or offsets[j] + sizes[j] <= offsets[i]
            assert apart or not together


def test_another_order_fills_the_gap_that_size_alone_leaves() -> None:
    sizes, ranges = [128, 256, 192, 128], [(1, 4), (2, 2), (3, 5), (3, 6)]
    assert place(sizes, ranges)[1] == 128 + 192 + 128  # by size alone: 512


def planned(text: str) -> Plan:
    return lower(assign_layout(graph(text)), find_isa("x86-avx2"), "Net")


def convolution(y: str, x: str, channels: int, filters: int) -> str:
    return (
        f"%w{y}: f32[{filters},{channels},1,1] = Random(1)\n%b{y}: f32[{filters}] = Random(2)\n"
        f'%{y}: f32[1,{filters},4,4] = Conv2D()(%{x}, %w{y}, %b{y}) "{y}"\n'
    )


def test_concat_of_channels_is_written_in_place() -> None:
    plan = planned(
        '%x: f32[1,3,4,4] = Input() "x"\n'
        + convolution("a", "x", 3, 8)
        + convolution("b", "x", 3, 16)
        + "%c: f32[1,24,4,4] = Concat(1)(%a, %b)\n"
        + convolution("d", "c", 24, 5)
        + "return y=%d"
    )
    assert [step.name for step in plan.steps] == ["conv", "conv_2", "conv_3"]
    assert [step.output.pitch for step in plan.steps[:2]] == [24, 24]
    assert plan.steps[1].output.offset == 8 * 4


def test_a_slice_of_channels_is_read_in_place() -> None:
    plan = planned(
        '%x: f32[1,3,4,4] = Input() "x"\n'
        + convolution("a", "x", 3, 24)
        + "%s: f32[1,8,4,4] = Slice((0, 16, 0, 0), (1, 8, 4, 4), (1, 1, 1, 1))(%a)\n"
        + convolution("d", "s", 8, 5)
        + "return y=%d"
    )
    assert [step.name for step in plan.steps] == ["conv", "conv_2"]
    assert plan.steps[1].inputs[0].pitch == 24


def test_element_wise_layers_overwrite_what_dies() -> None:
    plan = planned(
        '%x: f32[1,3,4,4] = Input() "x"\n'
        + convolution("a", "x", 3, 8)
        + "%s: f32[1,8,4,4] = Sigmoid()(%a)\n%t: f32[1,8,4,4] = Add()(%s, %a)\nreturn y=%t"
    )
    first, second, third = (step.output.buffer for step in plan.steps)
    assert first != second  # the sum still reads the convolution
    assert third in (first, second)


def test_an_output_that_is_also_read_keeps_its_bytes() -> None:
    plan = planned(
        '%x: f32[1,3,4,4] = Input() "x"\n'
        + convolution("a", "x", 3, 8)
        + "%s: f32[1,8,4,4] = Sigmoid()(%a)\nreturn y=%s, z=%a"
    )
    assert plan.outputs[0].view.buffer != plan.outputs[1].view.buffer
