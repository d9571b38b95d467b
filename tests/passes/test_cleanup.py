"""Constant folding, common subexpressions, half precision, transposes that sink."""

from __future__ import annotations

from mdlc.passes.canonicalise import canonicalise
from mdlc.passes.common_subexpressions import merge_common_subexpressions
from mdlc.passes.constant_folding import fold_constants
from mdlc.passes.fp16_to_fp32 import fp16_to_fp32
from mdlc.passes.sink_transposes import sink_transposes
from tests.passes.ir import check, graph, operators, same_values


def test_constants_fold() -> None:
    check(
        fold_constants,
        """
        %x: f32[2] = Input() "x"
        %a: f32[2] = Constant([1.0, 2.0])
        %b: f32[2] = Full(3.0)
        %c: f32[2] = Mul()(%a, %b)
        %y: f32[2] = Add()(%x, %c)
        return y=%y
        """,
        """
        %x: f32[2] = Input() "x"
        %c: f32[2] = Constant([3.0, 6.0])
        %y: f32[2] = Add()(%x, %c)
        return y=%y
        """,
    )


def test_large_results_stay() -> None:
    before = graph("""
        %a: f32[2,1] = Random(1)
        %b: f32[1,3] = Random(2)
        %y: f32[2,3] = Mul()(%a, %b)
        return y=%y
    """)
    assert operators(fold_constants(before, largest_bytes=20)) == ["Mul"]
    assert operators(fold_constants(before)) == []


def test_equal_nodes_merge() -> None:
    check(
        merge_common_subexpressions,
        """
        %x: f32[2] = Input() "x"
        %a: f32[2] = Relu()(%x)
        %b: f32[2] = Relu()(%x)
        %y: f32[2] = Add()(%a, %b)
        return y=%y
        """,
        """
        %x: f32[2] = Input() "x"
        %a: f32[2] = Relu()(%x)
        %y: f32[2] = Add()(%a, %a)
        return y=%y
        """,
    )


def test_two_inputs_of_one_type_stay_apart() -> None:
    before = graph("""
        %a: f32[2] = Input() "a"
        %b: f32[2] = Input() "b"
        %y: f32[2] = Sub()(%a, %b)
        return y=%y
    """)
    after = merge_common_subexpressions(before)
    assert len(after.inputs) == 2
    same_values(before, after)


def test_half_is_widened_between_the_ports() -> None:
    check(
        fp16_to_fp32,
        """
        %x: f16[2] = Input() "x"
        %c: f16[2] = Full(2.0)
        %y: f16[2] = Mul()(%x, %c)
        return y=%y
        """,
        """
        %x: f16[2] = Input() "x"
        %w: f32[2] = Cast(dtype='f32')(%x)
        %c: f32[2] = Full(2.0)
        %m: f32[2] = Mul()(%w, %c)
        %y: f16[2] = Cast(dtype='f16')(%m)
        return y=%y
        """,
    )


def test_transposes_sink_until_they_cancel() -> None:
    check(
        lambda g: canonicalise(sink_transposes(g)),
        """
        %x: f32[1,3,4,5] = Input() "x"
        %t: f32[1,4,5,3] = Transpose((0, 2, 3, 1))(%x)
        %k: f32[3] = Constant([1.0, 2.0, 3.0])
        %m: f32[1,4,5,3] = Mul()(%t, %k)
        %r: f32[1,4,5,3] = Relu()(%m)
        %y: f32[1,3,4,5] = Transpose((0, 3, 1, 2))(%r)
        return y=%y
        """,
        """
        %x: f32[1,3,4,5] = Input() "x"
        %k: f32[1,3,1,1] = Constant([[[[1.0]], [[2.0]], [[3.0]]]])
        %m: f32[1,3,4,5] = Mul()(%x, %k)
        %r: f32[1,3,4,5] = Relu()(%m)
        return y=%r
        """,
    )


def test_transposes_sink_through_concat_reduce_and_pad() -> None:
    before = graph("""
        %x: f32[1,3,4,5] = Input() "x"
        %t: f32[1,4,5,3] = Transpose((0, 2, 3, 1))(%x)
        %c: f32[1,4,5,6] = Concat(3)(%t, %t)
        %p: f32[1,6,5,6] = Pad((0, 1, 0, 0), (0, 1, 0, 0))(%c)
        %m: f32[1,1,1,6] = Reduce(kind='mean', axes=(1, 2))(%p)
        return y=%m
    """)
    after = sink_transposes(before)
    assert operators(after) == ["Concat", "Pad", "Reduce", "Transpose"]
    same_values(before, after)


def test_operands_in_another_order_are_another_expression() -> None:
    before = graph("""
        %x: f32[3] = Input() "x"
        %z: f32[3] = Input() "z"
        %a: f32[3] = Sub()(%x, %z)
        %b: f32[3] = Sub()(%z, %x)
        %y: f32[3] = Mul()(%a, %b)
        return y=%y
    """)
    after = merge_common_subexpressions(before)
    assert operators(after) == ["Sub", "Sub", "Mul"]
    same_values(before, after)
