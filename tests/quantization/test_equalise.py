"""Cross-layer equalisation: the same network, channels of like ranges."""

from __future__ import annotations

import numpy as np
import pytest

from mdlc.compiler.interpreter import evaluate, run
from mdlc.compiler.ir import Graph
from mdlc.compiler.ops.constant import constant
from mdlc.passes.lower_quantized import lower_quantized
from mdlc.passes.pipeline import random_inputs
from mdlc.quantization.calibrate import calibrate, tensor_keys
from mdlc.quantization.equalise import equalise
from mdlc.quantization.layers import assign
from mdlc.quantization.quantize import quantize
from mdlc.quantization.table import make_table
from tests.passes.ir import graph, same_values

NET = """
    %x: f32[1,4,8,8] = Input() "x"
    %w1: f32[6,4,3,3] = Random(1)
    %b1: f32[6] = Random(2)
    %a: f32[1,6,6,6] = Conv2D()(%x, %w1, %b1) "a"
    %r: f32[1,6,6,6] = {activation}(%a) "r"
    %w2: f32[{filters},{depth},3,3] = Random(3)
    %b2: f32[{filters}] = Random(4)
    %c: f32[1,{filters},4,4] = Conv2D(groups={groups})(%r, %w2, %b2) "c"
    return out=%c
"""


def net(activation: str = "Relu()", groups: int = 1) -> Graph:
    """Channels of the first convolution differ by three orders of magnitude."""
    text = NET.format(
        activation=activation, groups=groups, filters=12 if groups > 1 else 5, depth=6 // groups
    )
    spread = np.logspace(0, 3, 6).astype(np.float32)
    source = graph(text)
    first = next(n for n in source.order() if n.name == "a")
    second = next(n for n in source.order() if n.name == "c")

    def scaled(_: object, new: object) -> object:
        if new is first.inputs[1]:
            return constant(new.constant * spread[:, None, None, None])  # type: ignore[attr-defined]
        if new is first.inputs[2]:
            return constant(new.constant * spread)  # type: ignore[attr-defined]
        if new is second.inputs[1]:
            by = np.repeat(spread, 2)[:, None] if groups > 1 else spread[None]
            return constant(new.constant / by[:, :, None, None])  # type: ignore[attr-defined]
        return new

    return source.rebuild(scaled)  # type: ignore[arg-type]


@pytest.mark.parametrize("activation", ["Relu()", "LeakyRelu(alpha=0.2)"])
@pytest.mark.parametrize("groups", [1, 6], ids=["full", "depthwise"])
def test_the_network_computes_the_same(activation: str, groups: int) -> None:
    before = net(activation, groups)
    after = equalise(before)
    same_values(before, after, rtol=1e-3, atol=1e-3)
    values = evaluate(after, random_inputs(after))
    (middle,) = (v for n, v in values.items() if n.name == "a")
    peaks = np.abs(middle).max((0, 2, 3))
    assert peaks.max() / peaks.min() < 5


def test_a_clip_stands_in_the_way() -> None:
    before = net("Clip(0.0, 6.0)")
    after = equalise(before)
    weights = [n.constant for n in after.order() if n.constant is not None]
    assert all(
        np.array_equal(a, n.constant)  # type: ignore[arg-type]
        for a, n in zip(weights, (n for n in before.order() if n.constant is not None), strict=True)
    )


def test_8_bits_are_enough_afterwards() -> None:
    """With three orders of magnitude between channels, one scale is not; once alike, it is."""

    def error(source: Graph) -> float:
        inputs = [random_inputs(source, seed) for seed in range(4)]
        table = make_table(calibrate(source, inputs), "minmax")
        lowered = lower_quantized(quantize(assign(source, table), per_tensor=True).graph)
        apart = [run(lowered, i)["out"] - run(source, i)["out"] for i in inputs]
        exact = [run(source, i)["out"] for i in inputs]
        return float(np.sqrt(np.mean(np.square(apart)) / np.mean(np.square(exact))))

    plain, equalised = error(net()), error(equalise(net()))
    assert equalised < 0.02
    assert plain > 5 * equalised


FIRE = """
    %x: f32[1,4,8,8] = Input() "x"
    %w1: f32[6,4,1,1] = Random(1)
    %b1: f32[6] = Random(2)
    %a: f32[1,6,8,8] = Conv2D()(%x, %w1, %b1) "a"
    %ar: f32[1,6,8,8] = Relu()(%a) "ar"
    %w2: f32[5,4,1,1] = Random(3)
    %b2: f32[5] = Random(4)
    %c: f32[1,5,8,8] = Conv2D()(%x, %w2, %b2) "c"
    %cr: f32[1,5,8,8] = Relu()(%c) "cr"
    %j: f32[1,11,8,8] = Concat(1)(%ar, %cr) "j"
    %p: f32[1,11,4,4] = MaxPool2D(Window((2, 2), (2, 2)))(%j) "p"
    %w3: f32[7,11,1,1] = Random(5)
    %b3: f32[7] = Random(6)
    %d: f32[1,7,4,4] = Conv2D()(%p, %w3, %b3) "d"
    %w4: f32[3,11,3,3] = Random(7)
    %b4: f32[3] = Random(8)
    %e: f32[1,3,2,2] = Conv2D()(%p, %w4, %b4) "e"
    return d=%d, e=%e
"""


def fire(spread: float = 50.0) -> Graph:
    """Two convolutions joined, pooled and read by two others; the second's values are small."""
    source = graph(FIRE)
    second = next(n for n in source.order() if n.name == "c")
    return source.rebuild(
        lambda _, new: (
            constant(new.constant / np.float32(spread))  # type: ignore[operator]
            if new in second.inputs[1:]
            else new
        )
    )


def measured(source: Graph) -> dict[object, np.ndarray]:
    statistics = calibrate(source, [random_inputs(source, seed) for seed in range(4)])
    return {n: statistics[k].peaks for n, k in tensor_keys(source).items()}  # type: ignore[misc]


def test_channels_are_followed_through_pools_and_concats() -> None:
    before = fire()
    after = equalise(before, measured(before))  # type: ignore[arg-type]
    same_values(before, after, rtol=1e-3, atol=1e-3)
    values = evaluate(after, random_inputs(after))
    (joined,) = (v for n, v in values.items() if n.name == "j")
    peaks = joined.max((0, 2, 3))
    untouched = evaluate(before, random_inputs(before))
    (plain,) = (v.max((0, 2, 3)) for n, v in untouched.items() if n.name == "j")
    assert plain[plain > 0].max() / plain[plain > 0].min() > 20

    spread, before_that = (v[v > 0].max() / v[v > 0].min() for v in (peaks, plain))
    # Values and weights share what there is to balance: half of it, on a logarithmic scale.
    assert spread < 1.5 * before_that**0.5


def test_an_output_of_the_network_is_not_scaled() -> None:
    before = fire()
    joined = next(n for n in before.order() if n.name == "j")
    shown = Graph(before.inputs, (*before.outputs, joined), ("d", "e", "j"))
    same_values(shown, equalise(shown, measured(shown)))  # type: ignore[arg-type]
