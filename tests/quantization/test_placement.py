"""Layers in integers or in float, by what they cost: a minimum cut against trying everything."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mdlc.codegen.isa.registry import find_isa
from mdlc.compiler.ir import Node
from mdlc.precision.placement import cheapest
from mdlc.quantization.layers import Assignment
from mdlc.quantization.placement import LayerCycles, place
from tests.passes.ir import graph
from tests.quantization.test_quantize import RESIDUAL, assigned, quantized, weights

CHAIN = (
    '%x: f32[1,4,6,6] = Input() "x"'
    + "".join(weights(str(i), 4, 4, 1, i) for i in range(1, 5))
    + """
    %a: f32[1,4,6,6] = Conv2D()(%x, %1w, %1b) "a"
    %b: f32[1,4,6,6] = Conv2D()(%a, %2w, %2b) "b"
    %c: f32[1,4,6,6] = Conv2D()(%b, %3w, %3b) "c"
    %d: f32[1,4,6,6] = Conv2D()(%a, %4w, %4b) "d"
    %s: f32[1,4,6,6] = Add()(%c, %d) "s"
    return out=%s
"""
)


def flat(rounding: float, widening: float) -> object:
    def transition(node: Node) -> tuple[float, float]:
        return rounding, widening

    return transition


def total(
    whole: Assignment, cycles: dict[str, LayerCycles], in_float: set[str], each: float
) -> float:
    """What a choice costs, counted layer by layer; infinite where it cannot be."""
    keys = whole.keys
    inside = {n for n in whole.integer if keys[n] not in in_float}
    found = sum(c.in_float if key in in_float else c.integer for key, c in cycles.items())
    rounded, widened = set(), set()
    for node in whole.graph.order():
        for source in node.inputs:
            if source.constant is not None:
                continue
            if node in inside and source not in inside:
                if keys[node] == "s":
                    return np.inf
                rounded.add(source)
            if node not in inside and source in inside:
                widened.add(source)
    widened.update(node for node in whole.graph.outputs if node in inside)
    return found + each * (len(rounded) + len(widened))


@pytest.mark.parametrize("seed", range(12))
def test_nothing_is_cheaper(seed: int) -> None:
    whole = assigned(graph(CHAIN))
    generator = np.random.default_rng(seed)
    each = float(generator.uniform(0, 4))
    cycles = {name: LayerCycles(*map(float, generator.uniform(0, 10, 2))) for name in "abcds"}
    found = place(whole, cycles, flat(each, each))  # type: ignore[arg-type]
    every = [
        total(whole, cycles, set(chosen), each)
        for count in range(6)
        for chosen in itertools.combinations("abcds", count)
    ]
    assert found.integer_total == pytest.approx(min(every))
    assert total(whole, cycles, set(found.in_float), each) == pytest.approx(min(every))


def test_a_little_gain_between_floats_is_not_worth_two_transitions() -> None:
    whole = assigned(graph(CHAIN))
    cycles = {name: LayerCycles(10.0, 5.0) for name in "abcds"}
    cycles["c"] = LayerCycles(4.0, 5.0)
    found = place(whole, cycles, flat(1.0, 1.0))  # type: ignore[arg-type]
    assert set(found.in_float) == set("abcds")


def test_the_placement_is_one_that_the_quantiser_takes() -> None:
    whole = assigned(graph(RESIDUAL))
    cycles = {name: LayerCycles(1.0, 3.0) for name in ("a6", "dr", "c", "r", "p", "g", "m", "f")}
    cycles["dr"] = LayerCycles(9.0, 3.0)
    found = place(whole, cycles, flat(0.5, 0.5))  # type: ignore[arg-type]
    assert found.in_float == ("dr",)
    kept, _ = quantized(RESIDUAL, found.in_float)
    assert set(kept.assignment.layer_names()) == {"a6", "c", "r", "g", "f"}


def test_a_last_product_with_its_activation_costs_something_both_ways() -> None:
    """In float the two are one layer, called after the activation."""
    source = graph(
        '%x: f32[1,64,12,12] = Input() "x"'
        + weights("1", 64, 64, 3, 1)
        + weights("2", 256, 64, 1, 2)
        + """
    %a: f32[1,64,12,12] = Conv2D(pads=(1, 1, 1, 1))(%x, %1w, %1b) "a"
    %b: f32[1,256,12,12] = Conv2D()(%a, %2w, %2b) "b"
    %r: f32[1,256,12,12] = Relu()(%b) "r"
    %g: f32[1,256,1,1] = Reduce('mean', (2, 3))(%r) "g"
    return out=%g
"""
    )
    whole = assigned(source)
    assert {node.name for node in whole.wide} == {"b"}
    found = cheapest(whole, find_isa("x86-avx512-vnni"))
    assert found.in_float == ()
    count = 144 * 256 * 64
    # AVX-512 does 32 of them in a cycle, VNNI 128: no estimate is below that, or far above.
    assert count / 32 <= found.cycles["b"].in_float <= count / 8
    assert count / 128 <= found.cycles["b"].integer < found.cycles["b"].in_float
