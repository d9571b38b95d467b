"""Rounding of weights by what it does to the layer's output."""

from __future__ import annotations

import numpy as np
import pytest

from mdlc.compiler.interpreter import evaluate
from mdlc.compiler.ir import Graph, make
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.dense import Dense
from mdlc.compiler.ops.input import graph_input
from mdlc.compiler.types import Array
from mdlc.quantization.calibrate import calibrate, interpreted
from mdlc.quantization.layers import assign
from mdlc.quantization.moments import Moments, layer_moments, layer_vectors
from mdlc.quantization.rounding import adaptively_rounded, corrected, shrunk
from mdlc.quantization.table import make_table
from mdlc.quantization.weights import (
    QuantizedWeights,
    rounded_weights,
    weight_scales,
)

RNG = np.random.default_rng(7)


def correlated(count: int, depth: int, mean: float = 0.0) -> Array:
    """Vectors whose components go together, as neighbouring pixels do."""
    mixed = RNG.standard_normal((count, 6)) @ RNG.standard_normal((6, depth))
    return mixed + mean + 0.2 * RNG.standard_normal((count, depth))


def coarse(weights: Array) -> Array:
    """Scales of few steps, so that rounding matters."""
    return (np.abs(weights).reshape(len(weights), -1).max(1) / 7).astype(np.float32)


@pytest.mark.parametrize("groups", [1, 4])
def test_adaptive_rounding_halves_the_output_error(groups: int) -> None:
    depth, filters = 24, 8
    x = np.stack([correlated(500, depth) for _ in range(groups)])
    covariance = np.stack([np.cov(v.T, bias=True) for v in x])
    weights = RNG.standard_normal((filters, depth)).astype(np.float32)
    scales = coarse(weights)

    def error(integers: Array) -> float:
        lost = (weights - integers * scales[:, None]).reshape(groups, -1, depth)
        return float(np.einsum("gmk,gkl,gml->", lost, covariance, lost))

    nearest = np.clip(np.rint(weights / scales[:, None]), -127, 127)
    chosen = adaptively_rounded(weights, scales, covariance, groups)
    assert chosen.dtype == np.int8
    assert error(chosen) < 0.5 * error(nearest)


def test_with_independent_inputs_the_nearest_integers_are_best() -> None:
    weights = RNG.standard_normal((5, 9)).astype(np.float32)
    scales = coarse(weights)
    chosen = adaptively_rounded(weights, scales, np.eye(9)[None], 1)
    np.testing.assert_array_equal(chosen, rounded_weights(weights, scales))


def test_a_layer_that_saw_nothing_is_rounded_to_nearest() -> None:
    weights = RNG.standard_normal((5, 9)).astype(np.float32)
    scales = coarse(weights)
    chosen = adaptively_rounded(weights, scales, np.zeros((1, 9, 9)), 1)
    np.testing.assert_array_equal(chosen, rounded_weights(weights, scales))


def test_integers_stay_within_127() -> None:
    weights = np.ones((2, 6), np.float32)
    chosen = adaptively_rounded(weights, np.float32([1 / 127]), np.ones((1, 6, 6)), 1)
    assert np.abs(chosen.astype(int)).max() <= 127


@pytest.mark.parametrize("adaptive", [False, True])
def test_bias_correction_keeps_the_mean_output(adaptive: bool) -> None:
    x = correlated(800, 12, mean=2.0).astype(np.float32)
    w = RNG.standard_normal((4, 12)).astype(np.float32)
    b = RNG.standard_normal(4).astype(np.float32)
    source = graph_input("x", (800, 12))
    node = make(Dense(), source, constant(w), constant(b), name="y")
    moments = Moments(0, np.zeros((1, 12)), np.zeros((1, 12, 12)))
    moments.add(x[None])
    scales = coarse(w)
    nearest = QuantizedWeights(rounded_weights(w, scales), scales, b)
    found = corrected({"y": moments}, adaptive=adaptive)("y", nearest, node)
    wanted = (x @ w.T + b).mean(0)
    before = np.abs((x @ nearest.values.T + nearest.bias).mean(0) - wanted).max()
    after = np.abs((x @ found.values.T + found.bias).mean(0) - wanted).max()
    assert before > 0.05
    assert after < 1e-4


@pytest.mark.parametrize(
    ("op", "filter_shape"),
    [
        (Conv2D((2, 1), (1, 1, 0, 1)), (5, 6, 3, 3)),
        (Conv2D(groups=6), (12, 1, 2, 2)),
        (Conv2D(groups=2, dilation=(2, 2)), (4, 3, 2, 2)),
    ],
)
def test_layer_vectors_are_what_the_weights_multiply(
    op: Conv2D, filter_shape: tuple[int, ...]
) -> None:
    x = graph_input("x", (2, 6, 7, 8))
    w = RNG.standard_normal(filter_shape).astype(np.float32)
    node = make(op, x, constant(w), constant(np.zeros(len(w), np.float32)))
    values = RNG.standard_normal((2, 6, 7, 8)).astype(np.float32)
    vectors = layer_vectors(node, values)  # G, P, K
    groups = len(vectors)
    y = np.einsum("gpk,gmk->pgm", vectors, w.reshape(groups, len(w) // groups, -1))
    wanted = evaluate(Graph((x,), (node,), ("y",)), {"x": values})[node]
    n, m, height, width = wanted.shape
    found = y.reshape(n, height, width, m).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_moments_over_a_set_are_those_of_all_vectors() -> None:
    x = graph_input("x", (1, 3, 5, 5))
    w = constant(RNG.standard_normal((4, 3, 3, 3)).astype(np.float32))
    node = make(Conv2D(), x, w, constant(np.zeros(4, np.float32)), name="y")
    graph = Graph((x,), (node,), ("y",))
    inputs = [{"x": RNG.standard_normal((1, 3, 5, 5)).astype(np.float32)} for _ in range(6)]
    assignment = assign(graph, make_table(calibrate(graph, inputs), "minmax"))
    found = layer_moments(graph, assignment, iter(inputs), interpreted)["y"]
    every = np.concatenate([layer_vectors(node, i["x"])[0] for i in inputs]).astype(np.float64)
    np.testing.assert_allclose(found.mean[0], every.mean(0), atol=1e-9)
    assert found.covariance is not None
    np.testing.assert_allclose(found.covariance[0], np.cov(every.T, bias=True), atol=1e-9)


def test_scales_leave_room_for_the_bias() -> None:
    weights = np.float32([[1e-9, -1e-9], [1.0, 0.5], [0.0, 0.0]])
    bias = np.float32([4.0, 1.0, 2.0])
    scales = weight_scales(weights, bias, 0.01)
    assert (np.abs(bias / (0.01 * scales)) <= 2.0**30 * 1.0001).all()
    assert scales[1] == np.float32(1 / 127)
    assert weight_scales(weights, bias, 0.01, per_tensor=True).shape == (1,)


def test_few_vectors_are_not_believed() -> None:
    """With 8 vectors of 32 components, rounding for them alone is worse on others."""
    weights = RNG.standard_normal((16, 32)).astype(np.float32)
    scales = coarse(weights)
    mixing = RNG.standard_normal((32, 32)) / 6 + np.eye(32)
    few, many = (RNG.standard_normal((count, 32)) @ mixing for count in (8, 4000))
    moments = Moments(0, np.zeros((1, 32)), np.zeros((1, 32, 32)))
    moments.add(few[None])
    assert moments.covariance is not None

    def error(integers: Array) -> float:
        return float(((many @ (weights - integers * scales[:, None]).T) ** 2).mean())

    believed = adaptively_rounded(weights, scales, moments.covariance, 1)
    doubted = adaptively_rounded(weights, scales, shrunk(moments), 1)
    assert error(doubted) < 0.8 * error(believed)
    assert error(doubted) < 1.1 * error(rounded_weights(weights, scales))
