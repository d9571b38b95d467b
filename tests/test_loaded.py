"""The class inside this process gives what the program of its own gives."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import mdlc
from tests.answers.test_class import ANSWERS, maps_model
from tests.emitted_code import block_model, image, two_ways_model


def test_tensors_are_those_of_the_program() -> None:
    compiled = mdlc.compile(two_ways_model(), "generic")
    rng = np.random.default_rng(0)
    inputs = {p.name: rng.standard_normal(p.type.shape, np.float32) for p in compiled.plan.inputs}
    expected = compiled.build()(inputs)
    with compiled.load() as network:
        for _ in range(2):
            found = network(inputs)
            for name, value in expected.items():
                np.testing.assert_array_equal(found[name], value)
        with pytest.raises(mdlc.MdlcError, match="no value for input"):
            network({})
        with pytest.raises(mdlc.MdlcError, match="has no input 'other'"):
            network({**inputs, "other": inputs["class"]})
        with pytest.raises(mdlc.MdlcError, match="convert it with"):
            network({**inputs, "class": inputs["class"].astype(float)})
    with pytest.raises(ValueError, match="closed"):
        network(inputs)


@pytest.mark.parametrize("kind", ["boxes", "mask"])
def test_answers_are_those_of_the_program(kind: str) -> None:
    compiled = mdlc.compile(maps_model(), "generic", answer=ANSWERS[kind])
    picture = {"x": np.random.default_rng(1).normal(0, 1, (1, 3, 8, 12)).astype(np.float32)}
    with compiled.load() as network:
        found: Any = network.answer(picture)
    np.testing.assert_array_equal(found, compiled.build().answer(picture))


def test_threads_of_python_share_a_network() -> None:
    compiled = mdlc.compile(block_model(), "arm-neon,generic", threads=2)
    expected = compiled.here().build()({"image": image()})["logits"]
    found = []
    with compiled.here().load(threads=2) as network:
        work = [
            threading.Thread(target=lambda: found.append(network({"image": image()})["logits"]))
            for _ in range(4)
        ]
        for each in work:
            each.start()
        for each in work:
            each.join()
        with pytest.raises(mdlc.MdlcError, match="number of threads is not between 1 and 2"):
            compiled.here().load(threads=3)
    assert len(found) == 4
    for each_found in found:
        np.testing.assert_array_equal(each_found, expected)


def test_what_this_machine_cannot_load_is_told() -> None:
    with pytest.raises(mdlc.MdlcError, match="is not loaded into a process"):
        mdlc.compile(block_model(), "metal").load()
