"""Emitted functions that differ never share a name."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mdlc
from mdlc.codegen.tiles.formula import stem
from mdlc.compiler.ops.clip import Clip
from mdlc.compiler.ops.leaky_relu import LeakyRelu
from tests.onnx_models import model, node, value, weight
from tests.targets import require

BOUNDS = st.one_of(
    st.integers(-20, 20).map(float), st.floats(-30, 30, width=32), st.sampled_from([0.1, 1.2, 12.0])
)


@given(st.lists(st.tuples(BOUNDS, BOUNDS), min_size=2, max_size=2, unique=True))
def test_operators_of_different_attributes_have_different_names(
    pairs: list[tuple[float, float]],
) -> None:
    clips = [Clip(low=low, high=high) for low, high in pairs]
    assert (stem(clips[0]) == stem(clips[1])) == (str(clips[0]) == str(clips[1]))
    slopes = [LeakyRelu(low) for low, _ in pairs]
    assert (stem(slopes[0]) == stem(slopes[1])) == (str(slopes[0]) == str(slopes[1]))


# What stands behind a convolution: ONNX operator, further inputs.
BEHIND = st.sampled_from(["", "Relu", "Clip 0 1.2", "Clip 0.1 2", "Sigmoid", "Add", "Add Relu"])


@settings(max_examples=25)
@given(st.data())
def test_layers_of_one_shape_in_one_network(data: st.DataObject) -> None:
    """Equal convolutions that differ in where they read and write, and in what follows them."""
    nodes, weights, parts = [], [], []
    rng = np.random.default_rng(0)
    size, channels = data.draw(st.sampled_from([4, 7])), data.draw(st.sampled_from([4, 8, 12]))
    taps = data.draw(st.sampled_from([1, 3]))
    target = data.draw(st.sampled_from(["generic", "x86-avx2", "x86-avx512", "arm-neon"]))
    nodes.append(node("Split", "x", "half0 half1", axis=1))
    sources = ["half0", "half1"]
    for i in range(data.draw(st.integers(2, 5))):
        source = data.draw(st.sampled_from(sources))
        shape = (channels, channels, taps, taps)
        weights.append(weight(f"w{i}", rng.normal(size=shape) / channels))
        nodes.append(node("Conv", f"{source} w{i}", f"c{i}", pads=[taps // 2] * 4))
        name = f"c{i}"
        for step, operator in enumerate(_behind(data.draw(BEHIND))):
            after = f"a{i}_{step}"
            if operator.startswith("Clip"):
                low, high = map(float, operator.split()[1:])
                weights += [weight(f"{after}_low", low), weight(f"{after}_high", high)]
                nodes.append(node("Clip", f"{name} {after}_low {after}_high", after))
            elif operator == "Add":
                nodes.append(node("Add", f"{name} {source}", after))
            else:
                nodes.append(node(operator, name, after))
            name = after
        sources.append(name)
        if data.draw(st.booleans()):
            parts.append(name)
    parts = list(dict.fromkeys([*parts, sources[-1]]))
    nodes.append(node("Concat", " ".join([*parts, "half1"]), "y", axis=1))
    proto = model(
        nodes,
        [value("x", (1, 2 * channels, size, size))],
        [value("y", (1, (len(parts) + 1) * channels, size, size))],
        weights,
    )
    _check(proto, target, (1, 2 * channels, size, size))


def _behind(choice: str) -> list[str]:
    return [choice] if choice.startswith("Clip") else choice.split()


def _check(proto: Any, target: str, shape: tuple[int, ...]) -> None:
    require(target)
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    found = mdlc.compile(proto, target, tuned=()).build()({"x": x})["y"]
    np.testing.assert_allclose(found, _expected(proto, x), rtol=1e-3, atol=1e-4)


def _expected(proto: Any, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("target", ["generic", "x86-avx2", "arm-neon"])
def test_two_clips_whose_numbers_read_alike(target: str) -> None:
    weights = [weight("w", np.ones((4, 4, 1, 1)))]
    weights += [weight(name, number) for name, number in
                (("a", 0.0), ("b", 1.2), ("c", 0.1), ("d", 2.0))]  # fmt: skip
    nodes = [node("Conv", "x w", "u"), node("Clip", "u a b", "v"), node("Conv", "v w", "s"),
             node("Clip", "s c d", "y")]  # fmt: skip
    proto = model(nodes, [value("x", (1, 4, 3, 3))], [value("y", (1, 4, 3, 3))], weights)
    _check(proto, target, (1, 4, 3, 3))
