"""Standard networks in 8 bits on every target: the reference's integers in every layer."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest

import mdlc
from benchmarks.networks import NETWORKS
from mdlc.checks.integer_verification import integer_layers
from mdlc.compiler.types import Array
from tests.targets import TARGETS, require

# Pixels each way: as few as the layers allow. ShuffleNetV2's shuffles name their sizes.
SIZES = dict.fromkeys(NETWORKS, 64) | {"shufflenet_v2": 224}


@cache
def network(name: str) -> onnx.ModelProto:
    model = NETWORKS[name]()
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = SIZES[name]
    return model


def noise(name: str, seed: int) -> dict[str, Array]:
    size = SIZES[name]
    drawn = np.random.default_rng(seed).uniform(-1, 1, (1, 3, size, size))
    return {"input": drawn.astype(np.float32)}


# ResNet-18 has no layer that ResNet-50 has not.
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "resnet_18"])
@pytest.mark.parametrize("target", TARGETS)
def test_every_layer_has_the_integers_of_the_reference(name: str, target: str) -> None:
    require(target)
    asked = mdlc.Quantize([noise(name, 0)], rounding="nearest", placement="everywhere")
    compiled = mdlc.compile(network(name), target, quantize=asked)
    found = integer_layers(compiled, [noise(name, 1)])
    assert found.first_off is None
    assert sum(layer.kind == "QuantizedConv2D" for layer in found.layers) >= 20
