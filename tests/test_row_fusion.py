"""Row-fused groups of layers in bands of rows: the rows that they keep, and generated code."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mdlc.codegen.isa.registry import find_isa
from mdlc.codegen.plan.arena import lower_bound
from mdlc.codegen.plan.lowering import lower
from mdlc.codegen.plan.row_fusion import RowGroup, band_node, strips, window_rows
from mdlc.codegen.run.executable import Executable
from mdlc.compiler.interpreter import run
from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.input import graph_input
from mdlc.compiler.types import Array
from mdlc.passes.layout import assign_layout
from tests.passes.ir import graph
from tests.targets import FLOAT_TARGETS, require

# Filter rows, stride, padding above and below, dilation.
LAYER = st.tuples(
    st.integers(1, 5), st.integers(1, 3), st.integers(0, 2), st.integers(0, 2), st.integers(1, 2)
)


def column(height: int, layers: list[tuple[int, int, int, int, int]]) -> list[Node]:
    """Convolutions over one column of pixels, of small whole numbers."""
    node = graph_input("x", (1, 1, height, 1))
    generator = np.random.default_rng(height)
    found = []
    for taps, stride, top, bottom, dilation in layers:
        reach = (taps - 1) * dilation + 1
        assume(node.shape[2] + top + bottom >= reach and max(top, bottom) < reach)
        op = Conv2D((stride, 1), (top, 0, bottom, 0), (dilation, 1))
        weights = generator.integers(-3, 4, (1, 1, taps, 1)).astype(np.float32)
        node = make(op, node, constant(weights), constant(np.ones(1, np.float32)))
        found.append(node)
    return found


def in_bands(nodes: list[Node], group: RowGroup, x: Array) -> Array:
    """The group's output, each layer computed by its reference on the rows of each band."""
    y = np.full(nodes[-1].shape, np.nan, np.float32)
    for run_ in strips(nodes, group):
        windows = [np.full((1, 1, rows, 1), np.nan, np.float32)
                   for rows in window_rows(nodes, group)]  # fmt: skip
        tensors = [x, *windows, y]
        for bands in run_:
            for number in range(bands.count):
                for window, move in zip(windows, bands.band.moves, strict=False):
                    if move is not None:
                        kept = window[:, :, move.first : move.first + move.rows].copy()
                        assert kept.shape[2] == move.rows
                        window[:, :, : move.rows] = kept
                for i, part in enumerate(bands.band.parts):
                    if part is None:
                        continue
                    source = part.source + number * bands.steps[i][0]
                    target = part.target + number * bands.steps[i][1]
                    node = band_node(nodes[i], part)
                    taken = tensors[i][:, :, source : source + part.taken]
                    assert taken.shape[2] == part.taken
                    w, b = (each.constant for each in node.inputs[1:])
                    assert w is not None
                    assert b is not None
                    result = node.op.reference(taken, w, b)
                    assert result.shape[2] == part.rows
                    tensors[i + 1][:, :, target : target + part.rows] = result
    return y


@given(
    st.integers(1, 60),
    st.lists(LAYER, min_size=1, max_size=5),
    st.integers(1, 9),
    st.integers(1, 4),
)
def test_bands_are_the_whole(
    height: int, layers: list[tuple[int, int, int, int, int]], rows: int, count: int
) -> None:
    nodes = column(height, layers)
    assume(nodes[-1].shape[2] >= count)
    x = np.random.default_rng(1).integers(-3, 4, (1, 1, height, 1)).astype(np.float32)
    expected = x
    for node in nodes:
        w, b = (each.constant for each in node.inputs[1:])
        assert w is not None
        assert b is not None
        expected = node.op.reference(expected, w, b)
    group = RowGroup(0, len(nodes) - 1, rows, count)
    np.testing.assert_array_equal(in_bands(nodes, group, x), expected)


def residual_block(height: int, width: int) -> Graph:
    """A first layer, an expansion, a 5x5 depthwise layer of stride 1, and a sum."""
    return assign_layout(
        graph(
            f'%i: f32[1,3,{2 * height},{2 * width}] = Input() "i"\n'
            "%w0: f32[12,3,3,3] = Random(1)\n%b0: f32[12] = Random(2)\n"
            f"%x: f32[1,12,{height},{width}] = Conv2D((2, 2), (1, 1, 1, 1))(%i, %w0, %b0)\n"
            "%w1: f32[37,12,1,1] = Random(3)\n%b1: f32[37] = Random(4)\n"
            f"%e: f32[1,37,{height},{width}] = Conv2D(activation=Relu())(%x, %w1, %b1)\n"
            "%w2: f32[37,1,5,5] = Random(5)\n%b2: f32[37] = Random(6)\n"
            f"%d: f32[1,37,{height},{width}] = "
            "Conv2D(pads=(2, 2, 2, 2), groups=37, activation=Relu())(%e, %w2, %b2)\n"
            "%w3: f32[12,37,1,1] = Random(7)\n%b3: f32[12] = Random(8)\n"
            f"%y: f32[1,12,{height},{width}] = Conv2D(residual=True)(%d, %w3, %b3, %x)\n"
            "return y=%y"
        )
    )


def reduction(height: int, width: int) -> Graph:
    """A padded 3x3 layer of stride 2, a depthwise one of stride 2, and a pointwise one."""
    half, quarter = (-(-height // 2), -(-width // 2)), (-(-height // 4), -(-width // 4))
    return assign_layout(
        graph(
            f'%i: f32[1,5,{height},{width}] = Input() "i"\n'
            "%w0: f32[18,5,3,3] = Random(1)\n%b0: f32[18] = Random(2)\n"
            f"%a: f32[1,18,{half[0]},{half[1]}] = "
            "Conv2D((2, 2), (1, 1, 1, 1), activation=Clip(0.0, 6.0))(%i, %w0, %b0)\n"
            "%w1: f32[18,1,3,3] = Random(3)\n%b1: f32[18] = Random(4)\n"
            f"%d: f32[1,18,{quarter[0]},{quarter[1]}] = "
            "Conv2D((2, 2), (1, 1, 1, 1), groups=18)(%a, %w1, %b1)\n"
            "%w2: f32[21,18,1,1] = Random(5)\n%b2: f32[21] = Random(6)\n"
            f"%y: f32[1,21,{quarter[0]},{quarter[1]}] = Conv2D()(%d, %w2, %b2)\n"
            "return y=%y"
        )
    )


@pytest.mark.parametrize("target", FLOAT_TARGETS)
@pytest.mark.parametrize("network", [residual_block, reduction], ids=lambda f: f.__name__)
def test_generated_code_agrees_with_reference(network: object, target: str) -> None:
    require(target)
    assert callable(network)
    net = network(23, 14)
    x = np.random.default_rng(0).uniform(-1, 1, net.inputs[0].shape).astype(np.float32)
    (expected,) = run(net, {"i": x}).values()
    first = 1 if network is residual_block else 0
    isa = find_isa(target)
    whole = lower(net, isa, "Whole", row_groups=())
    for rows, threads in ((1, 1), (4, 1), (3, 2)):
        group = RowGroup(first, len(whole.steps) - 1, rows, threads)
        plan = lower(net, isa, "Bands", row_groups=(group,), threads=threads)
        assert plan.arena_bytes <= 1.05 * lower_bound(plan.buffers) + 64
        built = Executable(plan, flags=("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"))
        (actual,) = built({"i": x}).values()
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=2e-5, err_msg=str(group))
        traced = built.trace({"i": x})
        assert set(traced) == {step.name for step in plan.steps} - plan.hidden
        assert len(plan.hidden) == len(plan.steps) - 1 - first


def test_a_chain_shrinks_the_arena() -> None:
    """A MobileNet's first block: 112x112x96 floats never exist."""
    net = assign_layout(
        graph(
            '%x: f32[1,16,112,112] = Input() "x"\n'
            "%w1: f32[96,16,1,1] = Random(3)\n%b1: f32[96] = Random(4)\n"
            "%e: f32[1,96,112,112] = Conv2D(activation=Relu())(%x, %w1, %b1)\n"
            "%w2: f32[96,1,3,3] = Random(5)\n%b2: f32[96] = Random(6)\n"
            "%d: f32[1,96,56,56] = "
            "Conv2D((2, 2), (0, 0, 1, 1), groups=96, activation=Relu())(%e, %w2, %b2)\n"
            "%w3: f32[24,96,1,1] = Random(7)\n%b3: f32[24] = Random(8)\n"
            "%y: f32[1,24,56,56] = Conv2D()(%d, %w3, %b3)\nreturn y=%y"
        )
    )
    for target in FLOAT_TARGETS:
        isa = find_isa(target)
        plan, whole = lower(net, isa, "Bands"), lower(net, isa, "Whole", row_groups=())
        assert [(group.first, group.last) for group in plan.row_groups] == [(0, 2)], target
        assert plan.arena_bytes < whole.arena_bytes / 3
        assert whole.row_groups == ()


def test_a_tensor_that_is_read_twice_stays_whole() -> None:
    net = residual_block(112, 112)
    plan = lower(net, find_isa("arm-neon"), "Net")
    assert plan.row_groups
    assert plan.steps[0].name not in plan.hidden  # the sum reads it, too
