"""Trained networks: what the importer makes of them, interpreted, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from mdlc.compiler.interpreter import run
from mdlc.compiler.ir import Graph
from mdlc.compiler.onnx_import import import_model
from tests.shared_data import (
    MODELS,
    Array,
    cifar10_test,
    imagenet_pictures,
    model_inputs,
    model_path,
    needs_shared,
    onnxruntime_outputs,
)

pytestmark = needs_shared

FLOAT_MODELS = [name for name, model in MODELS.items() if not model.quantised]
# Largest |difference| over the largest |expected|. In half precision both sides round every
# intermediate value to 11 bits, at different places.
BOUND, HALF_BOUND = 2e-5, 2e-2


def error(actual: Array, expected: Array) -> float:
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    if expected.dtype.kind != "f":
        return float((actual != expected).mean())
    difference = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
    return float(difference.max() / np.abs(expected.astype(np.float64)).max())


@pytest.mark.parametrize("name", FLOAT_MODELS)
def test_interpreted_as_onnxruntime_computes(name: str) -> None:
    graph = import_model(model_path(name))
    assert graph.name == name
    (inputs,) = model_inputs(name)
    expected = onnxruntime_outputs(name, inputs)
    actual = run(graph, inputs)
    assert list(actual) == list(expected)
    for output, value in expected.items():
        bound = HALF_BOUND if value.dtype == np.float16 else BOUND
        assert error(actual[output], value) <= bound, output


@pytest.mark.parametrize("name", list(MODELS))
def test_inputs_are_what_the_network_takes(name: str) -> None:
    session = onnxruntime.InferenceSession(
        str(model_path(name)), providers=["CPUExecutionProvider"]
    )
    (wanted,) = session.get_inputs()
    ((given, value),) = model_inputs(name)[0].items()
    assert given == wanted.name
    assert len(value.shape) == len(wanted.shape)
    fixed = [(a, b) for a, b in zip(value.shape, wanted.shape, strict=True) if isinstance(b, int)]
    assert all(a == b for a, b in fixed)


def top1(name: str, count: int) -> list[int]:
    return [
        int(next(iter(onnxruntime_outputs(name, inputs).values())).argmax())
        for inputs in model_inputs(name, count)
    ]


def test_preprocessing_is_the_right_one() -> None:
    """With wrong preprocessing these networks are far less accurate."""
    files = imagenet_pictures()
    classes = np.array([files[i * len(files) // 25][1] for i in range(25)])
    assert (np.array(top1("mobilenet_v2_imagenet", 25)) - 1 == classes).mean() >= 0.7
    assert (np.array(top1("squeezenet_fp16", 25)) == classes).mean() >= 0.5
    _, labels = cifar10_test(200)
    assert (np.array(top1("resnet20_cifar10", 200)) == labels).mean() >= 0.7
    assert (np.array(top1("resnet8_cifar10", 200)) == labels).mean() >= 0.7


def test_batches() -> None:
    graph = import_model(model_path("resnet20_cifar10"), shapes={"input": (3, 3, 32, 32)})
    batch = np.concatenate([i["input"] for i in model_inputs("resnet20_cifar10", 3)])
    expected = onnxruntime_outputs("resnet20_cifar10", {"input": batch})["logits"]
    assert error(run(graph, {"input": batch})["logits"], expected) <= BOUND


@pytest.mark.parametrize("name", FLOAT_MODELS)
def test_shape_arithmetic_is_folded(name: str) -> None:
    """What is left computes on tensors; integers survive only as inputs and arg-max results."""
    graph: Graph = import_model(model_path(name))
    kinds = {type(node.op).__name__ for node in graph.order()}
    assert not kinds & {"Shape", "Identity"}
    for node in graph.order():
        if node.inputs:
            assert any(source.constant is None for source in node.inputs), node
