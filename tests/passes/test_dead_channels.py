from __future__ import annotations

import numpy as np
import pytest

from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.ops.constant import constant
from mdlc.passes.dead_channels import remove_dead_channels
from tests.passes.ir import graph, same_values

BLOCK = """
    %x: f32[1,3,8,8] = Input() "x"
    %w: f32[6,3,3,3] = Random(1)
    %b: f32[6] = Random(2)
    %c: f32[1,6,8,8] = Conv2D(pads=(1, 1, 1, 1), activation=Relu())(%x, %w, %b) "expand"
    %v: f32[6,1,3,3] = Random(3)
    %d: f32[1,6,8,8] = Conv2D(pads=(1, 1, 1, 1), groups=6)(%c, %v, %b) "depthwise"
    %a: f32[1,6,8,8] = Add()(%d, %c) "sum"
    %p: f32[1,6,4,4] = MaxPool2D(Window((2, 2), (2, 2)))(%a) "pool"
    %z: f32[4,6,1,1] = Random(4)
    %k: f32[4] = Random(5)
    %e: f32[1,4,4,4] = Conv2D()(%p, %z, %k) "project"
    return y=%e
"""


def edit(source: Graph, name: str, filters: int | None, channels: int | None, bias: float) -> Graph:
    """Zeroes a filter (with a bias) or an input channel of a layer's weights."""

    def visit(old: Node, fresh: Node) -> Node:
        if old.name != name:
            return fresh
        weights, biases = (fresh.inputs[i].constant.copy() for i in (1, 2))  # type: ignore[union-attr]
        if filters is not None:
            weights[filters], biases[filters] = 0, bias
        if channels is not None:
            weights[:, channels] = 0
        return make(fresh.op, fresh.inputs[0], constant(weights), constant(biases), name=name)

    return source.rebuild(visit)


def channels(result: Graph) -> dict[str, int]:
    return {node.name: node.shape[1] for node in result.order() if node.constant is None}


def test_nothing_dead_nothing_changes() -> None:
    before = graph(BLOCK)
    assert remove_dead_channels(before) is before


def test_a_channel_that_nobody_reads_goes_everywhere() -> None:
    before = edit(graph(BLOCK), "project", None, 4, 0.0)
    after = remove_dead_channels(before)
    assert channels(after) == {
        "x": 3, "expand": 5, "depthwise": 5, "sum": 5, "pool": 5, "project": 4,
    }  # fmt: skip
    same_values(before, after)


def test_a_zero_filter_goes_with_the_constant_that_it_leaves() -> None:
    # relu(-1) is 0; the depthwise layer then gives its bias, which the projection absorbs.
    before = edit(graph(BLOCK), "expand", 2, None, -1.0)
    after = remove_dead_channels(before)
    assert channels(after)["expand"] == 5
    same_values(before, after)


def test_a_constant_that_padding_would_show_stays() -> None:
    before = edit(graph(BLOCK), "expand", 2, None, 0.7)
    after = remove_dead_channels(before)
    assert channels(after)["expand"] == 6
    same_values(before, after)


def test_a_sum_needs_both_sides_dead() -> None:
    before = edit(graph(BLOCK), "depthwise", 1, None, 0.0)
    after = remove_dead_channels(before)
    assert channels(after)["depthwise"] == 6
    same_values(before, after)


def test_concat_and_flatten() -> None:
    before = graph("""
        %x: f32[1,3,2,2] = Input() "x"
        %w: f32[6,3,1,1] = Random(1)
        %b: f32[6] = Random(2)
        %c: f32[1,6,2,2] = Conv2D()(%x, %w, %b) "left"
        %w2: f32[3,3,1,1] = Random(3)
        %b2: f32[3] = Random(4)
        %d: f32[1,3,2,2] = Conv2D()(%x, %w2, %b2) "right"
        %j: f32[1,9,2,2] = Concat(1)(%c, %d) "join"
        %f: f32[1,36] = Reshape((1, 36))(%j) "flat"
        %w3: f32[5,36] = Random(5)
        %b3: f32[5] = Random(6)
        %y: f32[1,5] = Dense()(%f, %w3, %b3) "dense"
        return y=%y
    """)
    before = edit(edit(before, "left", 1, None, 0.5), "right", 0, None, 0.0)
    after = remove_dead_channels(before)
    assert channels(after) == {
        "x": 3, "left": 5, "right": 2, "join": 7, "flat": 28, "dense": 5,
    }  # fmt: skip
    same_values(before, after)


def test_whole_vectors_stay_whole() -> None:
    """Of eight channels, one dead one stays with its seven; of five dead ones, one does."""
    eight = graph(BLOCK.replace("[6", "[8").replace(",6,", ",8,").replace("groups=6", "groups=8"))
    one = edit(eight, "project", None, 4, 0.0)
    assert channels(remove_dead_channels(one))["expand"] == 8
    five = eight
    for channel in (0, 2, 3, 5, 6):
        five = edit(five, "project", None, channel, 0.0)
    after = remove_dead_channels(five)
    assert channels(after)["expand"] == channels(after)["depthwise"] == 4
    same_values(five, after)


def test_outputs_of_the_network_stay() -> None:
    before = edit(graph(BLOCK), "project", 1, None, 0.0)
    assert channels(remove_dead_channels(before))["project"] == 4


@pytest.mark.parametrize("seed", range(12))
def test_random_zeros(seed: int) -> None:
    """Networks with random dead filters and columns compute the same and never grow."""
    generator = np.random.default_rng(seed)
    before = graph(BLOCK)
    for name in ("expand", "depthwise", "project"):
        rows = 4 if name == "project" else 6
        columns = None if name != "project" else int(generator.integers(6))
        before = edit(before, name, int(generator.integers(rows)), columns, float(seed % 3 - 1))
    after = remove_dead_channels(before)
    same_values(before, after)
    assert all(channels(after)[name] <= count for name, count in channels(before).items())
