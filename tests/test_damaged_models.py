"""Models with damaged bytes: each is imported, or refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.onnx_import import import_model
from tests.onnx_models import model, node, value, weight
from tests.shared_data import model_path, needs_shared


def survives(data: bytes) -> None:
    """Imports, or says in one line why not; anything else than MdlcError fails the test."""
    message = ""
    try:
        import_model(data)
    except MdlcError as error:
        message = str(error)
    assert message.isprintable()


@pytest.fixture(scope="module")
def little() -> bytes:
    """All kinds of fields in few bytes, so that most damage hits something."""
    body: Callable[[str], onnx.GraphProto] = lambda name: helper.make_graph(  # noqa: E731
        [node("Relu", "c", name)], name, [], [value(name, None)]
    )
    own = helper.make_function("own", "F", ["a"], ["b"], [node("Abs", "a", "b")],
                               [helper.make_opsetid("", 17)])  # fmt: skip
    return model(
        [
            node("Conv", "x w b", "c", pads=[1, 1, 1, 1], strides=[2, 2], group=1, name="conv"),
            node("If", "yes", "r", then_branch=body("t"), else_branch=body("e")),
            node("MaxPool", "r", "p", kernel_shape=[2, 2], ceil_mode=1),
            node("Resize", "p _ scales", "z", mode="linear"),
            node("Shape", "z", "s"),
            node("Gather", "s zero", "n", axis=0),
            node("Concat", "n minus", "target", axis=0),
            node("Reshape", "z target", "flat"),
            node("Softmax", "flat", "soft", axis=-1),
            node("F", "soft", "y", domain="own"),
        ],
        [value("x", ("N", 3, 8, 8))],
        [value("y", ("N", None))],
        [
            weight("w", np.ones((4, 3, 3, 3))), weight("b", np.ones(4)),
            weight("yes", [True], np.bool_), weight("scales", [1, 1, 2, 2]),
            weight("zero", [0], np.int64), weight("minus", [-1], np.int64),
        ],
        functions=[own],
        opsets=[helper.make_opsetid("own", 1)],
    ).SerializeToString()  # fmt: skip


def test_little_is_sound(little: bytes) -> None:
    assert import_model(little).outputs[0].shape == (1, 144)


def test_truncation(little: bytes) -> None:
    for length in range(len(little)):
        survives(little[:length])


FUZZ = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def damage(data: bytes, flips: list[tuple[float, int]]) -> bytes:
    changed = bytearray(data)
    for place, byte in flips:
        changed[int(place * (len(data) - 1))] = byte
    return bytes(changed)


FLIPS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4)


@FUZZ
@given(flips=FLIPS)
def test_changed_bytes(little: bytes, flips: list[tuple[float, int]]) -> None:
    survives(damage(little, flips))


@FUZZ
@given(data=st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    survives(data)


@needs_shared
def test_truncated_network() -> None:
    data = model_path("mnist_cntk").read_bytes()
    for length in range(0, len(data), 97):
        survives(data[:length])


@needs_shared
@FUZZ
@given(flips=FLIPS)
def test_network_with_changed_bytes(flips: list[tuple[float, int]]) -> None:
    survives(damage(model_path("mnist_cntk").read_bytes(), flips))
