"""Packed weights that `Init` copies into the order of another instruction set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mdlc
from mdlc.codegen.plan.weights_file import placed
from mdlc.codegen.weights.repack import Repacking, nests_of
from mdlc.compiler.types import Array
from tests.emitted_code import require
from tests.onnx_models import model, node, value, weight

ARM = "arm-neon,arm-neon+dotprod,arm-neon+i8mm"
X86 = "generic,x86-avx2,x86-avx512"


def _layers() -> onnx.ModelProto:
    """A convolution, a depthwise, a grouped, a transposed one and a dense layer, whose channels
    divide by no width of panels."""
    random = np.random.default_rng(5)

    def filters(name: str, *shape: int) -> onnx.TensorProto:
        return weight(name, random.normal(0, 0.2, shape))

    return model(
        [
            node("Conv", "x w1", "a", kernel_shape=[3, 3], pads=[1] * 4),
            node("Relu", "a", "b"),
            node("Conv", "b w2", "c", kernel_shape=[3, 3], pads=[1] * 4, group=52),
            node("Conv", "c w3", "d", kernel_shape=[1, 1], group=2),
            node("ConvTranspose", "d w4", "e", kernel_shape=[2, 2], strides=[2, 2]),
            node("GlobalAveragePool", "e", "f"),
            node("Flatten", "f", "g"),
            node("Gemm", "g w5", "y", transB=1),
        ],
        [value("x", (1, 5, 12, 12))],
        [value("y", (1, 37))],
        [
            filters("w1", 52, 5, 3, 3),
            filters("w2", 52, 1, 3, 3),
            filters("w3", 44, 26, 1, 1),
            filters("w4", 44, 29, 2, 2),
            filters("w5", 37, 29),
        ],
    )


def _quantize() -> mdlc.Quantize:
    frames = np.random.default_rng(6).normal(0, 1, (4, 1, 5, 12, 12)).astype(np.float32)
    return mdlc.Quantize(calibrate=[{"x": frame} for frame in frames], placement="everywhere")


@pytest.mark.parametrize(("targets", "int8"), [(ARM, True), (X86, True), (X86, False)])
def test_init_makes_what_each_variant_packs(targets: str, int8: bool) -> None:
    quantize = _quantize() if int8 else None
    compiled = mdlc.compile(_layers(), target=targets, name="Net", quantize=quantize)
    found = placed(compiled.plans)
    copied = 0
    data = compiled.files()["Net.weights"][64:]
    for plan, copies in zip(compiled.plans, found.copied, strict=True):
        for (step, field), each in copies.items():
            array = next(s for s in plan.layers if s.name == step).weights[field]
            kept = np.frombuffer(data, np.uint8, offset=each.source)
            assert each.how.applied(kept, array.nbytes) == array.tobytes(), (step, field)
            copied += array.nbytes
    assert copied > 0
    largest = max(plan.weight_bytes for plan in compiled.plans)
    if int8:  # in float, some variants transform filters, which no copy does
        assert found.nbytes <= 1.1 * largest


def test_variants_answer_as_their_own_classes(tmp_path: Path) -> None:
    require("g++")
    frame = {"x": np.random.default_rng(7).normal(0, 1, (1, 5, 12, 12)).astype(np.float32)}
    quantize = _quantize()
    both = mdlc.compile(_layers(), target=X86, name="Net", quantize=quantize)
    answers = [each.build()(frame)["y"].tobytes() for each in both.by_target()]
    assert len(set(answers)) == 1
    alone = mdlc.compile(_layers(), target="generic", name="Net", quantize=quantize)
    assert alone.build()(frame)["y"].tobytes() == answers[0]


def test_a_file_may_hold_all_orders() -> None:
    kept, copied = (
        mdlc.compile(_layers(), target=ARM, name="Net", pack=pack, quantize=_quantize()).files()
        for pack in ("all", "first")
    )
    assert len(kept["Net.weights"]) > 1.2 * len(copied["Net.weights"])
    assert b"repacked_" not in kept["Net.cpp"]
    assert b"repacked_" in copied["Net.cpp"]
    told = json.loads(copied["Net.json"])
    assert told["weight_bytes"] == len(copied["Net.weights"]) - 64


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_orders_are_told_as_loops(shape: list[int], seed: int) -> None:
    """Any transpose, with padding between its rows, is copied as it should be."""
    random = np.random.default_rng(seed)
    axes = random.permutation(len(shape))
    source = np.arange(1, np.prod(shape) + 1, dtype=np.int16).reshape(shape)
    padding = [(0, int(random.integers(0, 3))) for _ in shape]
    made: Array = np.pad(source.transpose(axes), padding)
    places = np.flatnonzero(made)
    nests = nests_of(places, made.reshape(-1)[places].astype(np.int64) - 1, made.itemsize)
    assert nests is not None
    assert len(nests) <= 2 + int(np.prod(shape)) // 4
    assert Repacking(nests).applied(source, made.nbytes) == made.tobytes()
