"""Every pass on random networks: what they compute, as the reference interpreter sees it, stays.

The networks are grown node by node from a seed; the operators are those of exporters, in the
awkward orders that passes look for: normalisations around convolutions, padding before them,
transposes, constants that are neutral or broadcast, tensors with several users.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from mdlc.compiler.interpreter import evaluate, run
from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.op import Op
from mdlc.compiler.ops.add import Add
from mdlc.compiler.ops.average_pool2d import AveragePool2D
from mdlc.compiler.ops.batch_normalization import BatchNormalization
from mdlc.compiler.ops.clip import Clip
from mdlc.compiler.ops.concat import Concat
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.conv_transpose2d import ConvTranspose2D
from mdlc.compiler.ops.dense import Dense
from mdlc.compiler.ops.div import Div
from mdlc.compiler.ops.hard_sigmoid import HardSigmoid
from mdlc.compiler.ops.input import graph_input
from mdlc.compiler.ops.leaky_relu import LeakyRelu
from mdlc.compiler.ops.max import Max
from mdlc.compiler.ops.max_pool2d import MaxPool2D
from mdlc.compiler.ops.min import Min
from mdlc.compiler.ops.mul import Mul
from mdlc.compiler.ops.pad import Pad
from mdlc.compiler.ops.prelu import PRelu
from mdlc.compiler.ops.reduce import Reduce
from mdlc.compiler.ops.relu import Relu
from mdlc.compiler.ops.reshape import Reshape
from mdlc.compiler.ops.sigmoid import Sigmoid
from mdlc.compiler.ops.slice import Slice
from mdlc.compiler.ops.sub import Sub
from mdlc.compiler.ops.tanh import Tanh
from mdlc.compiler.ops.transpose import Transpose
from mdlc.compiler.types import Array, DType
from mdlc.compiler.window import Window
from mdlc.passes.pipeline import random_inputs, run_passes
from mdlc.pipeline import PASSES

SEEDS = range(40)
DISTINCT = list({graph_pass.__name__: graph_pass for graph_pass in PASSES}.values())


class Grower:
    """Grows a network; every choice comes from the seed."""

    def __init__(self, seed: int, dtype: DType = DType.F32) -> None:
        self.random = np.random.default_rng(seed)
        self.dtype = dtype
        self.inputs = [graph_input("a", (1, 4, 8, 8), dtype)]
        if self.chance(0.3):
            self.inputs.append(graph_input("b", (1, 4, 8, 8), dtype))
        self.pool = list(self.inputs)

    def chance(self, probability: float) -> bool:
        return bool(self.random.random() < probability)

    def integer(self, low: int, high: int) -> int:
        return int(self.random.integers(low, high))

    def values(self, *shape: int, low: float = -1.0, high: float = 1.0) -> Node:
        return constant(self.random.uniform(low, high, shape).astype(self.dtype.numpy))

    def scalar(self, value: float) -> Node:
        shape = [(), (1,), (1, 1, 1), (1, 1, 1, 1)][self.integer(0, 4)]
        return constant(np.full(shape, value, self.dtype.numpy))

    def grow(self, steps: int) -> Graph:
        growers: list[Callable[[Node], Node | None]] = [
            self.convolve, self.convolve, self.convolve, self.normalise, self.normalise,
            self.activate, self.activate, self.arithmetic, self.arithmetic, self.pad, self.turn,
            self.turn, self.combine, self.combine, self.reduce, self.slice, self.gate,
            self.upsample,
        ]  # fmt: skip
        for _ in range(steps):
            # Mostly the newest tensor, so that chains arise.
            at = -1 if self.chance(0.75) else self.integer(0, len(self.pool))
            made = growers[self.integer(0, len(growers))](self.pool[at])
            if made is not None and made.type.size <= 4096:
                self.pool.append(replace(made, name=f"t{len(self.pool)}"))
        outputs = [self.pool[-1]]
        if self.chance(0.3):
            outputs.append(self.pool[self.integer(0, len(self.pool))])
        if self.chance(0.3):
            outputs.append(self.classify(self.pool[-1]))
        names = tuple(f"y{i}" for i in range(len(outputs)))
        return Graph(tuple(self.inputs), tuple(outputs), names)

    def convolve(self, x: Node) -> Node | None:
        channels, height, width = x.shape[1:]
        kernel, pad, stride = self.integer(1, 4), self.integer(0, 2), self.integer(1, 3)
        if min(height, width) + 2 * pad < kernel:
            return None
        groups = int(self.random.choice([g for g in (1, 2, channels) if channels % g == 0]))
        filters = groups * self.integer(1, 3) if groups > 1 else self.integer(2, 7)
        pads = (pad, pad, pad, pad if self.chance(0.8) else 0)
        if width + pads[1] + pads[3] < kernel:
            return None
        op = Conv2D((stride, stride), pads, groups=groups)
        w = self.values(filters, channels // groups, kernel, kernel)
        return make(op, x, w, self.values(filters))

    def upsample(self, x: Node) -> Node:
        op = ConvTranspose2D(stride=(2, 2))
        return make(op, x, self.values(x.shape[1], 3, 2, 2), self.values(3))

    def normalise(self, x: Node) -> Node:
        c = x.shape[1]
        shift = self.values(c) if self.chance(0.7) else constant(np.zeros(c, self.dtype.numpy))
        mean = self.values(c) if self.chance(0.7) else constant(np.zeros(c, self.dtype.numpy))
        variance = self.values(c, low=0.3, high=2.0)
        return make(BatchNormalization(), x, self.values(c), shift, mean, variance)

    def activate(self, x: Node) -> Node:
        choice = self.integer(0, 9)
        if choice == 8:
            shape = (x.shape[1], 1, 1) if self.chance(0.7) else (1, 1, x.shape[3])
            return make(PRelu(), x, self.values(*shape))
        ops: list[Op] = [Relu(), Clip(0.0, 6.0), Clip(-0.5, 0.5), LeakyRelu(0.1), Sigmoid(),
                         Tanh(), HardSigmoid(), Clip(low=0.0)]  # fmt: skip
        return make(ops[choice], x)

    def gate(self, x: Node) -> Node:
        """HardSwish, SiLU and the like, as exporters spell them out."""
        choice = self.integer(0, 5)
        if choice == 0:
            return make(Mul(), x, make(Sigmoid(), x))
        if choice == 1:
            return make(Mul(), x, make(HardSigmoid(1 / 6), x))
        clipped = make(Clip(0.0, 6.0), make(Add(), x, self.scalar(3.0)))
        if choice == 2:
            return make(Div(), make(Mul(), x, clipped), self.scalar(6.0))
        if choice == 3:
            return make(Mul(), x, make(Div(), clipped, self.scalar(6.0)))
        return make(Mul(), make(Mul(), x, self.scalar(1 / 6)), clipped)

    def arithmetic(self, x: Node) -> Node:
        op = [Add(), Mul(), Sub(), Div(), Min(), Max()][self.integer(0, 6)]
        shape = [(x.shape[1], 1, 1), (1, 1, x.shape[3]), (1, x.shape[1], 1, 1), x.shape][
            self.integer(0, 4)
        ]
        if self.chance(0.5):
            c = self.scalar([0.0, 1.0, 2.5, -0.5][self.integer(0, 4)])
        else:
            c = self.values(*shape)
        if isinstance(op, Div):
            c = self.values(*shape, low=0.5, high=2.0)
        swapped = self.chance(0.3) and not isinstance(op, Div)
        return make(op, c, x) if swapped else make(op, x, c)

    def pad(self, x: Node) -> Node:
        begins = (0, self.integer(0, 2) if self.chance(0.1) else 0, 1, self.integer(0, 2))
        ends = (0, 0, self.integer(0, 2), 1)
        if self.chance(0.5):
            y = make(Pad(begins, ends), x)
            return self.convolve(y) or y
        border = -np.inf if self.chance(0.5) else 0.0
        y = make(Pad(begins, ends, border), x)
        window = Window((3, 3), (2, 2), ceil_mode=self.chance(0.3))
        if min(y.shape[2:]) < 3:
            return x
        if border == 0 and self.chance(0.7):
            return make(AveragePool2D(window, self.chance(0.5)), y)
        return make(MaxPool2D(window), y)

    def turn(self, x: Node) -> Node:
        perm = (0, 2, 3, 1)
        y = make(Transpose(perm), x)
        for _ in range(self.integer(0, 3)):
            choice = self.integer(0, 4)
            if choice == 0:
                y = make(Relu(), y)
            elif choice == 1:
                y = make(Mul(), y, self.values(y.shape[3]))
            elif choice == 2:
                y = make(Pad((0, 1, 0, 0), (0, 0, 1, 0)), y)
            else:
                y = make(Add(), y, y)
        return make(Transpose((0, 3, 1, 2)), y) if self.chance(0.8) else y

    def combine(self, x: Node) -> Node | None:
        alike = [n for n in self.pool if n.shape == x.shape]
        other = alike[self.integer(0, len(alike))]
        if self.chance(0.3):
            return make(Concat(1), x, other)
        return make([Add(), Mul(), Sub()][self.integer(0, 3)], x, other)

    def reduce(self, x: Node) -> Node:
        pooled = make(Reduce("mean", (2, 3)), x)
        if self.chance(0.5):
            return make(Mul(), x, make(Sigmoid(), pooled))
        return make(Add(), x, pooled)

    def slice(self, x: Node) -> Node:
        c = x.shape[1]
        lengths = (x.shape[0], max(1, c // 2), *x.shape[2:])
        return make(Slice((0, c - lengths[1], 0, 0), lengths, (1, 1, 1, 1)), x)

    def classify(self, x: Node) -> Node:
        pooled = make(Reduce("mean", (2, 3), False), x)
        flat = make(Reshape((x.shape[0], x.shape[1])), pooled)
        y = make(Dense(), flat, self.values(5, x.shape[1]), self.values(5))
        return make(Mul(), make(Relu(), y), self.values(5))


def assert_same(before: dict[str, Array], after: dict[str, Array], bound: float = 1e-4) -> None:
    assert before.keys() == after.keys()
    for name, wanted in before.items():
        assert after[name].dtype == wanted.dtype
        scale = max(1.0, float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0)))
        np.testing.assert_allclose(after[name], wanted, rtol=0, atol=bound * scale, err_msg=name)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("graph_pass", DISTINCT, ids=lambda p: p.__name__)
def test_each_pass_alone(graph_pass: Callable[[Graph], Graph], seed: int) -> None:
    graph = Grower(seed).grow(14)
    inputs = random_inputs(graph, seed)
    assert_same(run(graph, inputs), run(graph_pass(graph), inputs))


@pytest.mark.parametrize("seed", range(100, 200))
def test_all_passes_one_after_the_other(seed: int) -> None:
    graph = Grower(seed).grow(24)
    inputs = random_inputs(graph, seed)
    expected = run(graph, inputs)
    tensors = {n.name: v for n, v in evaluate(graph, inputs).items() if n.name}
    for stage in run_passes(graph, PASSES):
        assert_same(expected, run(stage.graph, inputs))
        # A name says which of the model's tensors this is (less dead channels).
        found = evaluate(stage.graph, inputs)
        named = {n.name: v for n, v in found.items() if n.name and n.constant is None}
        alike = {k: v for k, v in named.items() if v.shape == tensors[k].shape}
        assert_same({k: tensors[k] for k in alike}, alike)


@pytest.mark.parametrize("seed", range(200, 220))
def test_half_precision_networks_keep_their_types(seed: int) -> None:
    graph = Grower(seed, DType.F16).grow(8)
    inputs = random_inputs(graph, seed)
    final = run_passes(graph, PASSES)[-1].graph
    assert [n.type.dtype for n in final.inputs] == [DType.F16] * len(final.inputs)
    between = {n.type.dtype for n in final.order()} - {DType.F16}
    assert between <= {DType.F32}
    assert_same(run(graph, inputs), run(final, inputs), 5e-2)
