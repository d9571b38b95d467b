"""Bounds carried through graphs; what single operators answer is in test_op_questions.py."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mdlc.compiler.interpreter import evaluate
from mdlc.compiler.values import MARGIN, values
from mdlc.passes.pipeline import random_inputs
from mdlc.passes.value_bounds import value_bounds
from tests.passes.ir import graph

NETWORK = """
    %x: f32[1,3,8,8] = Input() "x"
    %w: f32[4,3,3,3] = Random(1)
    %b: f32[4] = Random(2)
    %c: f32[1,4,8,8] = Conv2D(pads=(1, 1, 1, 1))(%x, %w, %b)
    %r: f32[1,4,8,8] = {activation}(%c)
    %d: f32[1,4,4,4] = MaxPool2D(Window((2, 2), (2, 2)))(%r)
    %e: f32[1,8,4,4] = Concat(1)(%d, %d)
    %y: f32[1,8,4,4] = Add()(%e, %e)
    return y=%y
"""


@pytest.mark.parametrize(
    ("activation", "largest"),
    [("Clip(0.0, 6.0)", 12.0), ("Sigmoid()", 2.0), ("Relu()", math.inf)],
)
def test_activations_bound_what_follows(activation: str, largest: float) -> None:
    network = graph(NETWORK.format(activation=activation))
    assert value_bounds(network)[network.outputs[0]].proven == pytest.approx(largest)


def test_known_inputs_prove_all_that_follows() -> None:
    """No value of any layer is larger than what is proven of it."""
    network = graph(NETWORK.format(activation="Relu()"))
    peaks = value_bounds(network, {"x": values(2.0, 0.0, 1.0)})
    found = evaluate(network, {"x": np.sign(random_inputs(network)["x"]) * np.float32(2)})
    for node, peak in peaks.items():
        assert np.abs(found[node]).max() <= peak.proven * (1 + 1e-6)
    assert peaks[network.outputs[0]].proven < math.inf


def test_likely_values_of_normalised_inputs_are_near_those_that_come() -> None:
    network = graph(NETWORK.format(activation="Relu()"))
    peaks = value_bounds(network)
    found = evaluate(network, {"x": np.random.default_rng(1).normal(size=(1, 3, 8, 8))})
    for node, peak in peaks.items():
        largest = np.abs(found[node]).max()
        assert largest <= peak.likely <= 10 * MARGIN * largest


def test_a_mean_counts_its_sum() -> None:
    network = graph("""
        %x: f32[1,2,8,8] = Input() "x"
        %y: f32[1,2,1,1] = AveragePool2D(Window((8, 8)))(%x)
        return y=%y
    """)
    peaks = value_bounds(network, {"x": values(3.0, 0.0, 1.0)})
    assert peaks[network.outputs[0]].proven == 3.0 * 64
