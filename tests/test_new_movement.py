"""A data-movement operator that nothing in the compiler knows of: its own file is enough.

What passes ask of it follows from its answer to `moves`. (What emits it is its kernel's file.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from mdlc.compiler.interpreter import run
from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.op import Op
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.dequantize_linear import DequantizeLinear
from mdlc.compiler.ops.input import graph_input
from mdlc.compiler.ops.quantize_linear import QuantizeLinear
from mdlc.compiler.ops.relu import Relu
from mdlc.compiler.types import Array, DType, TensorType
from mdlc.passes.canonicalise import canonicalise
from mdlc.passes.dead_channels import remove_dead_channels
from mdlc.passes.lower_quantized import lower_quantized
from mdlc.passes.value_bounds import value_bounds


@pytest.fixture
def flip() -> Iterator[type[Op]]:
    """An operator that turns an axis around, registered for the test alone."""

    @dataclass(frozen=True)
    class Flip(Op):
        axis: int

        def infer(self, *inputs: TensorType) -> TensorType:
            return inputs[0]

        def reference(self, *inputs: Array) -> Array:
            return np.flip(inputs[0], self.axis)

        def moves(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
            return (0,)

    yield Flip
    del Op.registry["Flip"]


def _quantized(x: Node) -> tuple[Node, Node]:
    """A tensor between its pair of 8-bit operators."""
    linear = constant(np.array(0.5, np.float32)), constant(np.array(3, np.int8))
    q = make(QuantizeLinear(), x, *linear)
    return q, make(DequantizeLinear(), q, *linear)


def test_it_is_lowered_to_integers(flip: type[Op]) -> None:
    x = graph_input("x", (1, 3, 4, 5))
    _, wide = _quantized(x)
    _, out = _quantized(make(flip(3), wide))  # type: ignore[call-arg]
    graph = Graph((x,), (out,), ("y",))
    lowered = lower_quantized(graph)
    moved = [node for node in lowered.order() if isinstance(node.op, flip)]
    assert [node.type.dtype for node in moved] == [DType.I8]
    value = np.random.default_rng(1).normal(0, 20, x.shape).astype(np.float32)
    (expected,), (found,) = (list(run(g, {"x": value}).values()) for g in (graph, lowered))
    np.testing.assert_array_equal(found, expected)


def test_its_values_are_bounded_by_those_it_moves(flip: type[Op]) -> None:
    x = graph_input("x", (1, 3, 4, 5), DType.F32)
    bounded = make(Relu(), x)
    node = make(flip(2), bounded)  # type: ignore[call-arg]
    peaks = value_bounds(Graph((x,), (node,), ("y",)))
    assert peaks[node].likely <= peaks[bounded].likely
    assert node.op.keeps_magnitude([bounded.type])


def test_passes_leave_it_alone(flip: type[Op]) -> None:
    x = graph_input("x", (1, 4, 4, 4))
    w, b = np.ones((4, 4, 1, 1), np.float32), np.zeros(4, np.float32)
    filtered = make(Conv2D(), x, constant(w), constant(b))
    graph = Graph((x,), (make(flip(1), filtered),), ("y",))  # type: ignore[call-arg]
    value = np.random.default_rng(2).normal(size=x.shape).astype(np.float32)
    for made in (canonicalise(graph), remove_dead_channels(graph)):
        (expected,), (found,) = (list(run(g, {"x": value}).values()) for g in (graph, made))
        np.testing.assert_array_equal(found, expected)
