from __future__ import annotations

from mdlc.compiler.ops.convert_layout import ConvertLayout
from mdlc.compiler.types import Layout
from mdlc.passes.layout import assign_layout, flatten_channels_last
from tests.passes.ir import check, graph, operators, same_values


def test_a_convolution_pulls_its_neighbours_to_nhwc() -> None:
    check(
        assign_layout,
        """
        %x: f32[1,3,6,6] = Input() "x"
        %w: f32[4,3,1,1] = Random(1)
        %b: f32[4] = Random(2)
        %c: f32[1,4,6,6] = Conv2D()(%x, %w, %b)
        %y: f32[1,4,6,6] = Sigmoid()(%c)
        return y=%y
        """,
        """
        %x: f32[1,3,6,6]@nhwc = Input() "x"
        %w: f32[4,3,1,1] = Random(1)
        %b: f32[4] = Random(2)
        %c: f32[1,4,6,6]@nhwc = Conv2D()(%x, %w, %b)
        %y: f32[1,4,6,6]@nhwc = Sigmoid()(%c)
        return y=%y
        """,
    )


def test_an_exporters_transposes_cost_nothing() -> None:
    """NHWC in, NHWC out: no tensor is converted, and the ports stay as the model has them."""
    after = assign_layout(
        graph("""
        %x: f32[1,6,6,3] = Input() "x"
        %t: f32[1,3,6,6] = Transpose((0, 3, 1, 2))(%x)
        %w: f32[4,3,1,1] = Random(1)
        %b: f32[4] = Random(2)
        %c: f32[1,4,6,6] = Conv2D()(%t, %w, %b)
        %y: f32[1,6,6,4] = Transpose((0, 2, 3, 1))(%c)
        return y=%y
        """)
    )
    assert operators(after) == ["Transpose", "Conv2D", "Transpose"]
    assert after.inputs[0].type.layout is Layout.PLAIN
    assert after.outputs[0].type.layout is Layout.PLAIN


def test_one_conversion_serves_two_readers() -> None:
    after = assign_layout(
        graph("""
        %x: f32[1,3,6,6] = Input() "x"
        %w: f32[4,3,1,1] = Random(1)
        %b: f32[4] = Random(2)
        %c: f32[1,4,6,6] = Conv2D()(%x, %w, %b)
        %r: f32[4,36] = Reshape((4, 36))(%c)
        %s: f32[2,72] = Reshape((2, 72))(%c)
        return y=%r, z=%s
        """)
    )
    assert operators(after).count("ConvertLayout") == 1


def test_the_cheaper_side_is_converted() -> None:
    """Two plain readers of a chain: one conversion where the tensor is smallest."""
    after = assign_layout(
        graph("""
        %x: f32[1,8,6,6] = Input() "x"
        %w: f32[8,8,1,1] = Random(1)
        %b: f32[8] = Random(2)
        %c: f32[1,8,6,6] = Conv2D()(%x, %w, %b)
        %m: f32[1,8,1,6] = Reduce(kind='mean', axes=(2,))(%c)
        %s: f32[1,8,1,6] = Sigmoid()(%m)
        %r: f32[48] = Reshape((48,))(%s)
        return y=%r
        """)
    )
    (converted,) = [n for n in after.order() if isinstance(n.op, ConvertLayout)]
    assert converted.shape == (1, 8, 1, 6)


def test_flattening_permutes_the_weights_instead() -> None:
    before = graph("""
        %x: f32[1,3,4,4] = Input() "x"
        %w: f32[5,3,1,1] = Random(1)
        %b: f32[5] = Random(2)
        %c: f32[1,5,4,4] = Conv2D()(%x, %w, %b)
        %f: f32[1,80] = Reshape((1, 80))(%c)
        %w2: f32[7,80] = Random(3)
        %b2: f32[7] = Random(4)
        %y: f32[1,7] = Dense()(%f, %w2, %b2)
        return y=%y
    """)
    after = assign_layout(flatten_channels_last(before))
    assert "ConvertLayout" not in operators(after)
    same_values(before, after)
