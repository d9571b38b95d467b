"""Infinities and NaN in emitted text, and networks that compute nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mdlc
from mdlc.compiler.types import Array
from tests.onnx_models import model, node, value, weight
from tests.targets import require

TARGETS = ("generic", "x86-avx2", "metal+fp32")
SHAPE = (1, 4, 8, 6)
ANY_NUMBER = (np.inf, -np.inf, np.nan, 0.0, -0.0, 1e-40, 3.4e38, 0.1)


def check(proto: onnx.ModelProto, target: str, x: Array) -> None:
    """The emitted network against ONNX Runtime, infinities and NaN included."""
    names = [output.name for output in proto.graph.output]
    wanted = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    found = mdlc.compile(proto, target, name="Net").build()({"x": x})
    for name, expected in zip(names, wanted, strict=True):
        np.testing.assert_allclose(found[name], expected, rtol=1e-6, atol=1e-6, err_msg=name)


def network(nodes: list[onnx.NodeProto], outputs: str = "y", **weights: Any) -> onnx.ModelProto:
    given = [weight(n, v, np.int64 if n == "s" else np.float32) for n, v in weights.items()]
    results = [value(name, None) for name in outputs.split()]
    return model(nodes, [value("x", SHAPE)], results, weights=given)


def picture() -> Array:
    return np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("nodes", "outputs", "weights"),
    [
        ([node("Reshape", "x s", "y")], "y", {"s": [4, 48]}),
        ([node("Squeeze", "x", "y")], "y", {}),
        ([node("Identity", "x", "y")], "y", {}),
        ([node("Identity", "x", "y"), node("Reshape", "x s", "z")], "y z", {"s": [-1]}),
        ([node("Relu", "x", "y")], "c", {"c": [1.5, np.inf, np.nan]}),
        ([node("Flatten", "x", "y")], "y c", {"c": [1.5]}),
    ],
)
def test_networks_without_layers(
    target: str, nodes: list[onnx.NodeProto], outputs: str, weights: dict[str, Any]
) -> None:
    if not target.startswith("metal"):  # a simulator runs those everywhere
        require(target)
    check(network(nodes, outputs, **weights), target, picture())


@settings(max_examples=8, deadline=None, derandomize=True, database=None)
@given(numbers=st.tuples(*[st.sampled_from(ANY_NUMBER)] * 4), target=st.sampled_from(TARGETS))
def test_numbers_in_emitted_text(numbers: tuple[float, ...], target: str) -> None:
    """Everywhere that a number of the model becomes text: borders, constants, parameters."""
    if not target.startswith("metal"):
        require(target)
    border, factor, outside, alpha = numbers
    nodes = [
        node("Pad", "x s border", "padded"),
        node("Mul", "x factor", "scaled"),
        node("LeakyRelu", "x", "leaky", alpha=alpha),
        node("Greater", "x factor", "above"),
        node("Where", "above x border", "chosen"),
    ]
    outputs = "padded scaled leaky chosen"
    if not target.startswith("metal"):  # which has no resizing of parts
        nodes.append(node("Resize", "x roi _ sizes", "cropped", mode="linear",
                          coordinate_transformation_mode="tf_crop_and_resize",
                          extrapolation_value=outside))  # fmt: skip
        outputs += " cropped"
    proto = network(nodes, outputs, s=[0, 0, 1, 1, 0, 0, 1, 1], border=border, factor=factor,
                    roi=[0, 0, -0.5, -0.5, 1, 1, 1.2, 1.2])  # fmt: skip
    proto.graph.initializer.append(weight("sizes", [1, 4, 5, 5], np.int64))
    check(proto, target, picture())
