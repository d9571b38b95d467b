"""The mean error of the last products, taken back by their biases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mdlc.compiler.interpreter import run
from mdlc.compiler.ir import Graph
from mdlc.compiler.types import Array
from mdlc.passes.lower_quantized import lower_quantized
from mdlc.passes.pipeline import random_inputs
from mdlc.quantization.calibrate import calibrate, interpreted
from mdlc.quantization.layers import assign
from mdlc.quantization.output_bias import believed, last_products, output_errors, shifted
from mdlc.quantization.quantize import Quantized, quantize
from mdlc.quantization.table import make_table
from tests.passes.ir import graph

NET = """
    %x: f32[1,4,8,8] = Input() "x"
    %w1: f32[6,4,3,3] = Random(1)
    %b1: f32[6] = Random(2)
    %a: f32[1,6,6,6] = Conv2D()(%x, %w1, %b1) "a"
    %r: f32[1,6,6,6] = Relu()(%a) "r"
    %w2: f32[5,6,3,3] = Random(3)
    %b2: f32[5] = Random(4)
    %c: f32[1,5,4,4] = Conv2D()(%r, %w2, %b2) "c"
    %m: f32[1,5,1,1] = Reduce('mean', (2, 3))(%c) "m"
    %s: f32[1,5] = Reshape((1, 5))(%m) "s"
    %w3: f32[3,5] = Random(5)
    %b3: f32[3] = Random(6)
    %d: f32[1,3] = Dense()(%s, %w3, %b3) "d"
    return out=%d
"""


def inputs_of(source: Graph, count: int = 8) -> list[dict[str, Array]]:
    return [random_inputs(source, seed) for seed in range(count)]


def narrow(source: Graph, keep_float: tuple[str, ...] = ()) -> Quantized:
    """With a range so small that clipping moves the mean of all that follows."""
    table = make_table(calibrate(source, inputs_of(source)), "minmax")
    range_ = table.tensors["r"]
    tensors = {**table.tensors, "r": replace(range_, high=range_.high / 3)}
    return quantize(assign(source, replace(table, tensors=tensors), keep_float))


def mean_error(source: Graph, found: Graph) -> Array:
    lowered = lower_quantized(found)
    apart = [run(lowered, i)["out"] - run(source, i)["out"] for i in inputs_of(source)]
    return np.mean(apart, 0)


def test_the_mean_output_is_that_of_the_float_network() -> None:
    source = graph(NET)
    before = narrow(source)
    after = shifted(before, output_errors(before, inputs_of(source), interpreted))
    assert after.tensors.keys() == before.tensors.keys()
    assert set(after.tensors.values()) <= set(after.graph.order())
    plain, corrected = (np.linalg.norm(mean_error(source, q.graph)) for q in (before, after))
    # Eight inputs are not believed in full.
    assert corrected < 0.5 * plain


def test_only_what_no_integer_follows_is_corrected() -> None:
    """With a layer kept in float, the one before it is read in float but is not the last."""
    source = graph(NET)
    found = narrow(source, ("m",)).assignment
    assert {n.name for n in found.wide} == {"c", "d"}
    assert [n.name for n in last_products(found)] == ["d"]


@pytest.mark.parametrize("count", [1, 16])
def test_what_chance_explains_is_not_believed(count: int) -> None:
    generator = np.random.default_rng(1)
    noise = generator.standard_normal((count, 40))
    assert np.linalg.norm(believed(noise)) < 0.6 * np.linalg.norm(noise.mean(0))
    if count > 1:
        np.testing.assert_allclose(believed(noise + 10.0), (noise + 10.0).mean(0), rtol=0.01)


def test_no_error_is_none() -> None:
    np.testing.assert_array_equal(believed(np.zeros((4, 3))), np.zeros(3))
