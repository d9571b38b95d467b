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
FEWEST_PIXELS = 50


@cache
def compiled(name: str, target: str = "metal") -> CompiledModel:
    require_clang()
    return mdlc.compile(model_path(name), target)


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


def test_a_whole_network_runs_with_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    """MobileNetV2 on a GPU of family 7, where its pointwise layers are products of matrices."""
    network = compiled("mobilenet_v2_imagenet")
    text = network.files()[f"{network.plan.name}.metal"].decode()
    assert text.count("kernel void matrix_") >= 5
    frames = model_inputs("mobilenet_v2_imagenet", 2)
    program = network.build()
    found = {}
    for family in ("6", "7"):
        monkeypatch.setenv("MDLC_METAL_FAMILY", family)
        found[family] = program.run_many(frames)
    (output,) = found["7"][0]
    for frame, plain, matrices in zip(frames, found["6"], found["7"], strict=True):
        wanted = onnxruntime_outputs("mobilenet_v2_imagenet", frame)[output]
        assert matrices[output].argmax() == wanted.argmax()
        assert relative_error(matrices[output], wanted) <= 3e-2
        assert (matrices[output] != plain[output]).any()  # sums in another order


def class_ious(actual: Array, expected: Array) -> dict[int, float]:
    """Intersection over union of every class of the expected mask that covers over 50 pixels.

    Below that, a flipped pixel is more than a hundredth of the union.
    """
    found = {}
    for label, pixels in zip(*np.unique(expected, return_counts=True), strict=True):
        if pixels > FEWEST_PIXELS:
            a, e = actual == label, expected == label
            found[int(label)] = float((a & e).sum() / (a | e).sum())
    return found


def mask_ious(name: str, pictures: int, target: str = "metal") -> list[dict[int, float]]:
    """`class_ious` of every picture: the class's mask against that of ONNX Runtime in float."""
    frames = model_inputs(name, pictures)
    found = []
    for frame, outputs in zip(frames, compiled(name, target).build().run_many(frames), strict=True):
        (actual,) = outputs.values()
        (expected,) = onnxruntime_outputs(name, frame).values()
        masks = [v if v.dtype.kind == "i" else v.argmax(1) for v in (actual, expected)]
        found.append(class_ious(*masks))
    return found


@pytest.mark.parametrize(
    ("name", "pictures", "within"),
    [
        # Not all: classes of 167, 2297 and 5480 of 263169 pixels, of 94 of 65536. docs/metal.md
        # has every picture's figure.
        ("deeplab_mobilenet_v2_pascal", 12, 9),
        ("portrait_segmentation", 8, 7),
    ],
)
def test_masks_are_those_of_float(name: str, pictures: int, within: int) -> None:
    means = [np.mean(list(ious.values())) for ious in mask_ious(name, pictures)]
    assert sum(mean >= 0.99 for mean in means) >= within, means
    assert means[0] >= 0.99  # a photograph of what the network is for
    assert min(means) >= 0.7, means


@pytest.mark.parametrize(
    ("name", "pictures"), [("deeplab_mobilenet_v2_pascal", 12), ("portrait_segmentation", 8)]
)
def test_in_float_all_masks_are_those_of_float(name: str, pictures: int) -> None:
    for ious in mask_ious(name, pictures, "metal+fp32"):
        assert np.mean(list(ious.values())) >= 0.99, ious


@pytest.mark.parametrize("name", ["resnet8_cifar10", "fastestdet"])
def test_in_float_outputs_are_those_of_float(name: str) -> None:
    (inputs,) = model_inputs(name)
    actual = compiled(name, "metal+fp32").build()(inputs)
    for output, expected in onnxruntime_outputs(name, inputs).items():
        assert relative_error(actual[output], expected) <= 1e-4, output
