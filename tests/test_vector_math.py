"""Transcendental functions of emitted code against double precision: their stated bounds hold."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import mdlc
from mdlc.codegen.tiles.vector_math import exp2_negative, sigmoid_half
from mdlc.compiler.expr import Expr, input_
from tests.onnx_models import model, node, value
from tests.targets import FLOAT_TARGETS, HALF_TARGETS, require
from tests.test_expr import MEANING

Array = npt.NDArray[Any]


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-x.astype(np.float64))))


def _in_halves(expr: Expr, x: Array) -> Array:
    """A formula on halves, every operation rounded once, as the instructions do."""
    if expr.kind == "input":
        return x
    if expr.kind == "const":
        return np.full_like(x, expr.value)
    arguments = [_in_halves(arg, x) for arg in expr.args]
    if expr.kind == "exp2_biased":
        return (arguments[0].view(np.uint16) << 10).view(np.float16)
    with np.errstate(all="ignore"):
        exact = MEANING[expr.kind](*(a.astype(np.float64) for a in arguments))
        return np.asarray(exact, np.float64).astype(np.float16)


def test_sigmoid_of_all_halves() -> None:
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    x = every[np.isfinite(every)]
    found = _in_halves(sigmoid_half(input_(0)), x)
    exact = _sigmoid(x)
    ulp = np.spacing(exact.astype(np.float16)).astype(np.float64)
    inner = x > -10.7
    assert (np.abs(found - exact) / ulp)[inner].max() <= 2
    assert np.abs(found - exact)[~inner].max() <= 3e-5
    with np.errstate(all="ignore"):
        silu = _in_halves(input_(0) * sigmoid_half(input_(0)), x)
    assert np.abs(silu - x * exact)[x < -1].max() <= 5e-4
    ends = np.array([-np.inf, np.inf, np.nan], np.float16)
    np.testing.assert_array_equal(_in_halves(sigmoid_half(input_(0)), ends), [0, 1, np.nan])


@pytest.mark.parametrize("target", FLOAT_TARGETS)
def test_sigmoid_of_floats(target: str) -> None:
    require(target)
    dense = np.linspace(-88, 88, 65531).astype(np.float32)
    x = np.concatenate([dense, np.array([-200, 200, -np.inf, np.inf, np.nan], np.float32)])
    proto = model([node("Sigmoid", "x", "y")], [value("x", (1, x.size))], [value("y", (1, x.size))])
    found = mdlc.compile(proto, target).build()({"x": x[None]})["y"][0]
    exact = _sigmoid(dense)
    bound = 2e-7 + 8e-8 * np.abs(dense.astype(np.float64))
    inner = np.abs(dense) < 87
    assert (np.abs(found[:-5] - exact) / exact / bound)[inner].max() <= 1
    np.testing.assert_allclose(found[-5:], [0, 1, 0, 1, np.nan], atol=2e-38, rtol=0)


@pytest.mark.parametrize("target", HALF_TARGETS)
def test_emitted_halves_are_those_of_the_formula(target: str) -> None:
    require(target)
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    x = every[np.abs(every) < 1000].astype(np.float32)
    proto = model([node("Sigmoid", "x", "s"), node("Relu", "s", "y")],
                  [value("x", (1, x.size))], [value("y", (1, x.size))])  # fmt: skip
    found = mdlc.compile(proto, target, precision="fp16").build()({"x": x[None]})["y"][0]
    expected = _in_halves(sigmoid_half(input_(0)), x.astype(np.float16))
    np.testing.assert_array_equal(found.astype(np.float16), expected)


@pytest.mark.parametrize("target", FLOAT_TARGETS)
def test_gelu_of_floats(target: str) -> None:
    require(target)
    dense = np.linspace(-20, 20, 65531).astype(np.float32)
    x = np.concatenate([dense, np.array([-1e30, 1e30, np.inf, np.nan], np.float32)])
    proto = model([node("Gelu", "x", "y")], [value("x", (1, x.size))], [value("y", (1, x.size))],
                  opset=20)  # fmt: skip
    found = mdlc.compile(proto, target).build()({"x": x[None]})["y"][0].astype(np.float64)
    wide = dense.astype(np.float64)
    exact = wide * np.vectorize(NormalDist().cdf)(wide)
    error = np.abs(found[:-4] - exact)
    assert (error / np.maximum(np.abs(exact), 1)).max() <= 3e-7
    assert (error / exact)[wide > 0].max() <= 3e-7
    np.testing.assert_allclose(found[-4:], [0, np.float32(1e30), np.inf, np.nan], atol=6e-9)


def test_powers_of_2_below_0() -> None:
    t = np.linspace(-130, 0, 65531).astype(np.float32)
    found = _in_floats(exp2_negative(input_(0)), t)
    inner = t > -126
    exact = np.exp2(t.astype(np.float64))
    assert (np.abs(found - exact) / exact)[inner].max() <= 2e-7
    assert (found[t < -126.5] == 0).all()
    assert np.isnan(_in_floats(exp2_negative(input_(0)), np.array([np.nan], np.float32)))


def _in_floats(expr: Expr, x: Array) -> Array:
    """A formula in single precision, multiply-adds rounded once."""
    if expr.kind == "input":
        return x
    if expr.kind == "const":
        return np.full_like(x, expr.value)
    arguments = [_in_floats(arg, x) for arg in expr.args]
    if expr.kind == "exp2_biased":
        return (arguments[0].view(np.uint32) << 23).view(np.float32)
    exact = MEANING[expr.kind](*(a.astype(np.float64) for a in arguments))
    return np.asarray(exact, np.float64).astype(np.float32)
