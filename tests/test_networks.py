"""Trained networks, compiled, built and run on every target, against ONNX Runtime on real data."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import mdlc
from mdlc.codegen.run.executable import Executable
from tests.shared_data import (
    MODELS,
    Array,
    model_inputs,
    model_path,
    needs_shared,
    onnxruntime_outputs,
)
from tests.targets import FLOAT_TARGETS, require

pytestmark = needs_shared

FLOAT_MODELS = [name for name, model in MODELS.items() if not model.quantised]
# Networks whose largest output is a class of ImageNet.
CLASSIFIERS = ("mobilenet_v2_imagenet", "mobilenet_v1_075_imagenet", "squeezenet_fp16")
PICTURES = 100
# Largest |difference| over the largest |expected|.
BOUND = 1e-4
# ONNX Runtime computes half-precision networks with half-precision tensors in between.
HALF_BOUND = 2e-2


@cache
def executable(name: str, target: str) -> Executable:
    return mdlc.compile(model_path(name), target).build()


def error(actual: Array, expected: Array) -> float:
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    if expected.dtype.kind != "f":
        return float((actual != expected).mean())
    difference = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
    return float(difference.max() / np.abs(expected.astype(np.float64)).max())


@pytest.mark.parametrize("target", FLOAT_TARGETS)
@pytest.mark.parametrize("name", FLOAT_MODELS)
def test_outputs(name: str, target: str) -> None:
    require(target)
    (inputs,) = model_inputs(name)
    actual = executable(name, target)(inputs)
    for output, expected in onnxruntime_outputs(name, inputs).items():
        bound = HALF_BOUND if expected.dtype == np.float16 else BOUND
        assert error(actual[output], expected) <= bound, output


@pytest.mark.parametrize("target", FLOAT_TARGETS)
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_top_1_is_that_of_onnxruntime(name: str, target: str) -> None:
    require(target)
    frames = model_inputs(name, PICTURES)
    actual = executable(name, target).run_many(frames)
    (output,) = actual[0]
    found = [int(frame[output].argmax()) for frame in actual]
    wanted = [int(onnxruntime_outputs(name, frame)[output].argmax()) for frame in frames]
    assert len(frames) == PICTURES
    if name == "squeezenet_fp16":
        # ONNX Runtime's own half-precision rounding decides where two classes are level.
        assert sum(a == b for a, b in zip(found, wanted, strict=True)) >= PICTURES - 1
    else:
        assert found == wanted


@pytest.mark.parametrize("name", FLOAT_MODELS)
def test_arena_is_near_the_lower_bound(name: str) -> None:
    from mdlc.codegen.plan.arena import lower_bound

    plan = mdlc.compile(model_path(name), "arm-neon").plan
    assert plan.arena_bytes <= 1.05 * lower_bound(plan.buffers)
