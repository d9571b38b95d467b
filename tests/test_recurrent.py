"""LSTM, GRU and RNN as imported, interpreted and emitted, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

import mdlc
from mdlc.codegen.isa.registry import find_isa
from mdlc.codegen.plan.lowering import lower
from mdlc.codegen.run.executable import Executable
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.interpreter import run
from mdlc.compiler.onnx_import import import_model
from mdlc.compiler.types import Array
from mdlc.passes.layout import assign_layout
from tests.shared_data import model_path, needs_shared
from tests.targets import require

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
# Affine, ScaledTanh and the like take parameters; ONNX Runtime wants them from the model.
PARAMETERS = {"Affine": 2, "ScaledTanh": 2, "HardSigmoid": 2, "LeakyRelu": 1, "Elu": 1,
              "ThresholdedRelu": 1}  # fmt: skip
PLAIN = ("Relu", "Tanh", "Sigmoid", "Softsign", "Softplus")


@st.composite
def models(draw: st.DrawFn) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A model of one recurrent operator, its values as inputs, or weights as initialisers."""
    kind = draw(st.sampled_from(sorted(GATES)))
    direction = draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    count = 2 if direction == "bidirectional" else 1
    steps, batch, size = (draw(st.integers(1, n)) for n in (5, 6, 9))
    hidden, width = draw(st.integers(1, 37)), GATES[kind]
    random = np.random.default_rng(draw(st.integers(0, 9)))

    def values(*shape: int) -> Array:
        return random.uniform(-1, 1, shape).astype(np.float32)

    attributes: dict[str, Any] = {"hidden_size": hidden, "direction": direction}
    arrays = {
        "X": values(steps, batch, size),
        "W": values(count, width * hidden, size),
        "R": values(count, width * hidden, hidden) / np.float32(np.sqrt(hidden)),
    }
    if draw(st.booleans()):
        arrays["B"] = values(count, 2 * width * hidden)
    if draw(st.booleans()):
        lengths = st.lists(st.integers(0, steps), min_size=batch, max_size=batch)
        arrays["lengths"] = np.array(draw(lengths), np.int32)
    if draw(st.booleans()):
        arrays["h"] = values(count, batch, hidden)
    if kind == "LSTM" and draw(st.booleans()):
        arrays["c"] = values(count, batch, hidden)
    if kind == "LSTM" and draw(st.booleans()):
        arrays["P"] = values(count, 3 * hidden)
    if draw(st.booleans()):
        attributes["clip"] = draw(st.sampled_from([0.25, 1.0]))
    if kind == "GRU":
        attributes["linear_before_reset"] = draw(st.integers(0, 1))
    if kind == "LSTM":
        attributes["input_forget"] = draw(st.sampled_from([0, 0, 1]))
    if draw(st.booleans()):
        each = {"LSTM": 3, "GRU": 2, "RNN": 1}[kind] * count
        names = draw(st.lists(st.sampled_from([*PARAMETERS, *PLAIN]), min_size=each, max_size=each))
        attributes["activations"] = names
        taken = [PARAMETERS.get(name, 0) for name in names]
        if any(taken):
            attributes["activation_alpha"] = [0.5 + 0.1 * i for i, n in enumerate(taken) if n]
        if 2 in taken:
            attributes["activation_beta"] = [0.3 + 0.1 * i for i, n in enumerate(taken) if n == 2]
    order = ["X", "W", "R", "B", "lengths", "h"] + ["c", "P"] * (kind == "LSTM")
    inputs = [name if name in arrays else "" for name in order]
    outputs = ["Y", "Y_h"] + ["Y_c"] * (kind == "LSTM")
    kept = draw(st.sets(st.sampled_from(outputs), min_size=1))
    node = helper.make_node(
        kind, inputs, [o if o in kept else "" for o in outputs], name="layer", **attributes
    )
    weights = {"W", "R", "B", "P"} if draw(st.booleans()) else set()
    graph = helper.make_graph(
        [node],
        "recurrent",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in arrays.items()
            if name not in weights
        ],
        [helper.make_tensor_value_info(o, 1, None) for o in outputs if o in kept],
        [
            onnx.numpy_helper.from_array(array, name)
            for name, array in arrays.items()
            if name in weights
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    return model, {name: array for name, array in arrays.items() if name not in weights}


def wanted(model: onnx.ModelProto, values: dict[str, Array]) -> dict[str, Array]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, values), strict=True))


def assert_close(actual: dict[str, Array], expected: dict[str, Array]) -> None:
    assert list(actual) == list(expected)
    for name, value in expected.items():
        assert actual[name].shape == value.shape
        np.testing.assert_allclose(actual[name], value, rtol=1e-4, atol=2e-5, err_msg=name)


@settings(deadline=None, max_examples=150)
@given(models())
def test_interpreted_as_onnxruntime(drawn: tuple[onnx.ModelProto, dict[str, Array]]) -> None:
    model, values = drawn
    assert_close(run(import_model(model), values), wanted(model, values))


@pytest.mark.parametrize("target", ["generic", "x86-avx2", "x86-avx512", "arm-neon"])
@settings(deadline=None, max_examples=4, suppress_health_check=[HealthCheck.too_slow])
@given(models())
def test_emitted_as_onnxruntime(
    target: str, drawn: tuple[onnx.ModelProto, dict[str, Array]]
) -> None:
    require(target)
    model, values = drawn
    plan = lower(assign_layout(import_model(model)), find_isa(target), "Layer", threads=2)
    assert_close(Executable(plan)(values), wanted(model, values))


@pytest.mark.parametrize("kind", sorted(GATES))
def test_batch_first_is_the_same_with_axes_exchanged(kind: str) -> None:
    """ONNX Runtime has no layout 1."""
    random = np.random.default_rng(1)
    hidden, width = 5, GATES[kind] * 5
    shapes = {"X": (3, 2, 4), "W": (2, width, 4), "R": (2, width, hidden), "h": (2, 2, hidden)}
    values = {name: random.uniform(-1, 1, s).astype(np.float32) for name, s in shapes.items()}
    outputs = ["Y", "Y_h"] + ["Y_c"] * (kind == "LSTM")
    found = []
    for layout in (0, 1):
        given = dict(values)
        if layout:
            given |= {name: np.swapaxes(values[name], 0, 1) for name in ("X", "h")}
        node = helper.make_node(
            kind, ["X", "W", "R", "", "", "h"], outputs, hidden_size=hidden, layout=layout,
            direction="bidirectional",
        )  # fmt: skip
        graph = helper.make_graph(
            [node],
            "layout",
            [helper.make_tensor_value_info(name, 1, array.shape) for name, array in given.items()],
            [helper.make_tensor_value_info(name, 1, None) for name in outputs],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
        found.append(run(import_model(model), given))
    plain, swapped = found
    np.testing.assert_array_equal(swapped["Y"], plain["Y"].transpose(2, 0, 1, 3))
    for name in outputs[1:]:
        np.testing.assert_array_equal(swapped[name], plain[name].transpose(1, 0, 2))


def test_activations_that_do_not_fit_are_refused() -> None:
    def imported(**attributes: Any) -> None:
        node = helper.make_node("RNN", ["X", "W", "R"], ["Y"], name="cell", **attributes)
        graph = helper.make_graph(
            [node],
            "bad",
            [helper.make_tensor_value_info(n, 1, s) for n, s in
             (("X", (1, 1, 2)), ("W", (1, 3, 2)), ("R", (1, 3, 3)))],
            [helper.make_tensor_value_info("Y", 1, None)],
        )  # fmt: skip
        import_model(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
        )

    imported()
    with pytest.raises(MdlcError, match=r"node 'cell' \(RNN\).*activation 'swish'"):
        imported(activations=["Swish"])
    with pytest.raises(MdlcError, match="2 activations, not 1"):
        imported(activations=["Tanh", "Tanh"])
    with pytest.raises(MdlcError, match="direction"):
        imported(direction="sideways")


@needs_shared
@pytest.mark.parametrize("target", ["generic", "x86-avx2", "arm-neon"])
@pytest.mark.parametrize("name", ["dtln_1", "dtln_2"])
def test_trained_networks_as_onnxruntime(name: str, target: str) -> None:
    """Speech enhancement: state goes in and comes out, ten times in turn."""
    require(target)
    session = onnxruntime.InferenceSession(model_path(name), providers=["CPUExecutionProvider"])
    ports = session.get_inputs()
    random = np.random.default_rng(3)
    state, expected_state = (np.zeros(ports[1].shape, np.float32) for _ in range(2))
    network = mdlc.compile(model_path(name), target).build()
    for _ in range(10):
        sound = random.uniform(-1, 1, ports[0].shape).astype(np.float32)
        actual, state = network({ports[0].name: sound, ports[1].name: state}).values()
        expected, expected_state = session.run(
            None, {ports[0].name: sound, ports[1].name: expected_state}
        )
        for a, b in ((actual, expected), (state, expected_state)):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5 * float(np.abs(b).max()))
