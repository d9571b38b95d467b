from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.interpreter import evaluate, run
from mdlc.compiler.ir import Graph, Node
from mdlc.compiler.types import Array
from mdlc.passes.pipeline import random_inputs
from mdlc.passes.prune_channels import (
    channel_spaces,
    filter_norms,
    kept_count,
    macs,
    prune_channels,
    prune_to_macs,
)
from mdlc.passes.reconstruct import reconstruction_scores, refit
from tests.passes.ir import graph
from tests.passes.test_dead_channels import BLOCK, channels

# A residual sum, a concat, a depthwise layer, a shuffle and a slice, padding of channels.
WEB = """
    %x: f32[1,3,8,8] = Input() "x"
    %w: f32[8,3,3,3] = Random(1)
    %b: f32[8] = Random(2)
    %c: f32[1,8,8,8] = Conv2D(pads=(1, 1, 1, 1), activation=Relu())(%x, %w, %b) "stem"
    %w1: f32[8,8,3,3] = Random(3)
    %r: f32[1,8,8,8] = Conv2D(pads=(1, 1, 1, 1), residual=True)(%c, %w1, %b, %c) "residual"
    %w2: f32[8,8,1,1] = Random(4)
    %p: f32[1,8,8,8] = Conv2D()(%r, %w2, %b) "point"
    %j: f32[1,16,8,8] = Concat(1)(%r, %p) "joined"
    %s: f32[1,16,8,8] = ChannelShuffle(2)(%j) "shuffled"
    %h: f32[1,8,8,8] = Slice((0, 8, 0, 0), (1, 8, 8, 8), (1, 1, 1, 1))(%s) "half"
    %dw: f32[8,1,3,3] = Random(5)
    %d: f32[1,8,8,8] = Conv2D(pads=(1, 1, 1, 1), groups=8)(%h, %dw, %b) "depthwise"
    %q: f32[1,10,8,8] = Pad(begins=(0, 1, 0, 0), ends=(0, 1, 0, 0))(%d) "padded"
    %w3: f32[4,10,1,1] = Random(6)
    %b3: f32[4] = Random(7)
    %e: f32[1,4,8,8] = Conv2D()(%q, %w3, %b3) "last"
    return y=%e
"""


def _masked(before: Graph, masks: Mapping[Node, Array], inputs: Mapping[str, Array]) -> Array:
    """The network with cut channels held at zero where they arise: what cutting must equal."""
    values: dict[Node, Array] = {}
    for node in before.order():
        if node.name == "x":
            values[node] = inputs["x"]
            continue
        value = node.op.reference(*(values[source] for source in node.inputs))
        if node in masks:
            value = value * masks[node].reshape(1, -1, *(1,) * (value.ndim - 2))
        values[node] = value
    return values[before.outputs[0]]


@pytest.mark.parametrize("text", [BLOCK, WEB], ids=["block", "web"])
@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.8])
def test_cutting_is_the_same_as_zeros(text: str, ratio: float) -> None:
    before = graph(text)
    pruned = prune_channels(before, ratio, multiple=1)
    inputs = random_inputs(before)
    (after,) = run(pruned.graph, inputs).values()
    expected = _masked(before, pruned.masks, inputs)
    np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-5)
    assert macs(pruned.graph) < macs(before) * (1 - ratio / 2)


def test_what_is_tied_goes_together() -> None:
    spaces = channel_spaces(graph(BLOCK))
    assert [[node.name for node in space.producers] for space in spaces] == [["expand"]]
    after = channels(prune_channels(graph(BLOCK), 0.5, multiple=1).graph)
    assert after == {"x": 3, "expand": 3, "depthwise": 3, "sum": 3, "pool": 3, "project": 4}


def test_residual_sums_keep_both_sides_alike() -> None:
    after = channels(prune_channels(graph(WEB), 0.5, multiple=1).graph)
    assert after["stem"] == after["residual"] < 8
    assert after["joined"] == after["residual"] + after["point"]
    assert after["last"] == 4


def test_the_smallest_filters_go() -> None:
    before = graph(BLOCK)
    (space,) = channel_spaces(before)
    norms = filter_norms(space)
    masks = prune_channels(before, 0.5, multiple=1).masks
    kept = next(mask for node, mask in masks.items() if node.name == "expand")
    assert set(np.flatnonzero(kept)) == set(np.argsort(-norms)[:3])


def test_counts_are_rounded_up() -> None:
    assert kept_count(64, 0.5, 1) == 32
    assert kept_count(64, 0.45, 8) == 40
    assert kept_count(6, 0.5, 4) == 4
    assert kept_count(6, 0.99, 8) == 6
    assert kept_count(100, 0.999, 1) == 1


def test_a_share_of_the_work() -> None:
    before = graph(WEB)
    pruned = prune_to_macs(before, 0.5, multiple=1)
    assert macs(pruned.graph) <= 0.5 * macs(before)


def _values(
    samples: Sequence[Mapping[str, Array]],
) -> object:
    def values(of: Graph, nodes: Sequence[Node]) -> Iterator[Mapping[Node, Array]]:
        whole = Graph(of.inputs, tuple(nodes), tuple(map(str, range(len(nodes)))))
        for sample in samples:
            yield evaluate(whole, sample)

    return values


def test_reconstruction_is_nearer_than_norms() -> None:
    before = graph(WEB)
    rng = np.random.default_rng(0)
    samples = [{"x": rng.standard_normal((1, 3, 8, 8)).astype(np.float32)} for _ in range(60)]
    values = _values(samples[:40])

    def error(network: Graph) -> float:
        pairs = [(run(before, s)["y"], run(network, s)["y"]) for s in samples[40:]]
        wrong = sum(float(((a - b) ** 2).sum()) for a, b in pairs)
        return wrong / sum(float((a**2).sum()) for a, _ in pairs)

    norms = prune_channels(before, 0.4, multiple=1)
    chosen = prune_channels(
        before,
        0.4,
        multiple=1,
        scores=reconstruction_scores(before, values),  # type: ignore[arg-type]
    )
    fitted = refit(before, chosen, values)  # type: ignore[arg-type]
    assert macs(fitted) <= macs(norms.graph)
    assert error(fitted) < 0.8 * error(chosen.graph)
    assert error(fitted) < 0.8 * error(norms.graph)


def test_redundant_channels_cost_nothing() -> None:
    # Half of the filters are copies: least squares finds them, and makes up for them.
    text = """
        %x: f32[1,3,6,6] = Input() "x"
        %w: f32[4,3,3,3] = Random(1)
        %ww: f32[8,3,3,3] = Concat(0)(%w, %w)
        %b: f32[8] = Random(2)
        %bb: f32[8] = Sub()(%b, %b)
        %c: f32[1,8,4,4] = Conv2D(activation=Relu())(%x, %ww, %bb) "first"
        %v: f32[5,8,3,3] = Random(3)
        %k: f32[5] = Random(4)
        %y: f32[1,5,2,2] = Conv2D()(%c, %v, %k) "second"
        return y=%y
    """
    from mdlc.passes.constant_folding import fold_constants

    before = fold_constants(graph(text))
    rng = np.random.default_rng(0)
    samples = [{"x": rng.standard_normal((1, 3, 6, 6)).astype(np.float32)} for _ in range(80)]
    values = _values(samples)
    scores = reconstruction_scores(before, values)  # type: ignore[arg-type]
    after = refit(before, prune_channels(before, 0.5, multiple=1, scores=scores), values)  # type: ignore[arg-type]
    assert channels(after)["first"] == 4
    wanted, found = run(before, samples[0])["y"], run(after, samples[0])["y"]
    assert np.abs(wanted - found).max() < 0.03 * np.abs(wanted).max()


@pytest.mark.parametrize("ratio", [0.0, 1.0, 1.5, -0.2])
def test_shares_that_empty_or_keep_everything_are_refused(ratio: float) -> None:
    with pytest.raises(MdlcError, match="of the channels would"):
        prune_channels(graph(BLOCK), ratio)


def test_a_network_that_cannot_be_cut_is_refused() -> None:
    tied = """
        %x: f32[1,8,4,4] = Input() "x"
        %w: f32[8,8,1,1] = Random(1)
        %b: f32[8] = Random(2)
        %y: f32[1,8,4,4] = Conv2D(residual=True)(%x, %w, %b, %x) "only"
        return y=%y
    """
    with pytest.raises(MdlcError, match=r"no channel can be cut: all are tied to inputs, outputs"):
        prune_channels(graph(tied), 0.5)
    with pytest.raises(MdlcError, match="every layer is too small"):
        prune_channels(graph(BLOCK), 0.1, multiple=4)
    with pytest.raises(MdlcError, match="no layer 'nowhere' can be pruned"):
        prune_channels(graph(BLOCK), 0.5, skip=["nowhere"])


def test_what_was_cut_once_can_be_cut_again() -> None:
    # An irregular cut makes a Gather of the shuffle.
    before = prune_channels(graph(WEB), 0.4, multiple=1).graph
    assert "Gather" in {type(node.op).__name__ for node in before.order()}
    pruned = prune_channels(before, 0.4, multiple=1)
    inputs = random_inputs(before)
    (after,) = run(pruned.graph, inputs).values()
    expected = _masked(before, pruned.masks, inputs)
    np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-5)
    assert channels(pruned.graph)["stem"] < channels(before)["stem"]
