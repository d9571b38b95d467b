"""Trained networks as Metal classes on the simulator, against ONNX Runtime on real data."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import mdlc
from mdlc.api import CompiledModel
from mdlc.compiler.types import Array
from tests.metal.programs import relative_error, require_clang
from tests.shared_data import model_inputs, model_path, needs_shared, onnxruntime_outputs

pytestmark = needs_shared

SMALL = ("mnist_cntk", "resnet8_cifar10", "resnet20_cifar10", "cifar10_winml_tutorial",
         "mobilenet_vww", "ultraface_rfb320", "fastestdet", "squeezenet_fp16")  # fmt: skip
PICTURES = 4


@cache
def compiled(name: str) -> CompiledModel:
    require_clang()
    return mdlc.compile(model_path(name), "metal")


def half_precision(name: str, inputs: dict[str, Array]) -> dict[str, Array]:
    """The network with every tensor and every constant rounded to half, computed in float."""
    values: dict[object, Array] = {}

    def rounded(value: Array) -> Array:
        return value.astype(np.float16).astype(value.dtype) if value.dtype == np.float32 else value

    graph = compiled(name).graph
    for node in graph.order():
        if node.constant is not None:
            values[node] = rounded(node.constant)
        elif not node.inputs:
            values[node] = rounded(inputs[node.name])
        else:
            values[node] = rounded(node.op.reference(*(values[s] for s in node.inputs)))
    return {n: values[o] for n, o in zip(graph.output_names, graph.outputs, strict=True)}


@pytest.mark.parametrize("name", SMALL)
def test_outputs_are_within_half_precisions_error(name: str) -> None:
    """At most twice what storing tensors and weights in half costs, and a rounding more."""
    (inputs,) = model_inputs(name)
    actual = compiled(name).build()(inputs)
    stored = half_precision(name, inputs)
    for output, expected in onnxruntime_outputs(name, inputs).items():
        unavoidable = relative_error(stored[output], expected)
        assert relative_error(actual[output], expected) <= 2 * unavoidable + 2e-3, output


def test_top_1_is_that_of_onnxruntime() -> None:
    """On all hundred pictures by benchmarks/metal_accuracy.py; here on a few."""
    frames = model_inputs("mobilenet_v2_imagenet", PICTURES)
    actual = compiled("mobilenet_v2_imagenet").build().run_many(frames)
    (output,) = actual[0]
    for frame, found in zip(frames, actual, strict=True):
        wanted = onnxruntime_outputs("mobilenet_v2_imagenet", frame)[output]
        assert found[output].argmax() == wanted.argmax()


def iou(a: Array, b: Array) -> float:
    """Intersections over unions of all classes together: one of few pixels weighs as few."""
    same = float((a == b).sum())
    return same / (2 * a.size - same)


def test_the_portrait_mask_is_that_of_float() -> None:
    (inputs,) = model_inputs("portrait_segmentation")
    (actual,) = compiled("portrait_segmentation").build()(inputs).values()
    (expected,) = onnxruntime_outputs("portrait_segmentation", inputs).values()
    assert iou(actual.argmax(1), expected.argmax(1)) >= 0.99


def test_the_deeplab_mask_is_that_of_float() -> None:
    (inputs,) = model_inputs("deeplab_mobilenet_v2_pascal")
    (actual,) = compiled("deeplab_mobilenet_v2_pascal").build()(inputs).values()
    (expected,) = onnxruntime_outputs("deeplab_mobilenet_v2_pascal", inputs).values()
    assert (actual == expected).mean() >= 0.99
    assert iou(actual, expected) >= 0.99
