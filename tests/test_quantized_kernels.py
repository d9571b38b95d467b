"""Kernels of 8-bit integers: every schedule, every factor and extreme values, on every target."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mdlc.codegen.cpp import emit as emit_cpp
from mdlc.codegen.cpp import variant
from mdlc.codegen.isa.registry import find_isa
from mdlc.codegen.kernel import candidates
from mdlc.codegen.plan.lowering import lower
from mdlc.codegen.run.executable import PRIVATE_INFO, Executable
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.fixed_point import fixed_point
from mdlc.compiler.interpreter import run
from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.op import Op
from mdlc.compiler.ops.concat import Concat
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.input import graph_input
from mdlc.compiler.ops.quantized_add import QuantizedAdd
from mdlc.compiler.ops.quantized_conv2d import QuantizedConv2D
from mdlc.compiler.ops.quantized_dense import QuantizedDense
from mdlc.compiler.ops.quantized_softmax import QuantizedSoftmax
from mdlc.compiler.ops.slice import Slice
from mdlc.compiler.types import Array, DType
from mdlc.passes.layout import assign_layout
from tests.targets import TARGETS, require
from tests.test_kernels import network_of

RNG = np.random.default_rng(8)
INTEGER_TARGETS = [t for t in TARGETS if find_isa(t).int8 is not None]


@pytest.mark.parametrize("target", TARGETS)
def test_every_schedule_is_exact(target: str) -> None:
    """All candidates, not only the winners, on the awkward shapes among the samples."""
    require(target)
    isa = find_isa(target)
    graph, values = network_of(QuantizedConv2D)
    expected = run(graph, values)
    graph = assign_layout(graph)
    layers = [node for node in graph.order() if isinstance(node.op, QuantizedConv2D)]
    found = {node.name: candidates(node, isa) for node in layers}
    most = max(len(each) for each in found.values())
    for round_ in range(0, most, max(1, most // 4)):
        chosen = {name: each[min(round_, len(each) - 1)].schedule for name, each in found.items()}
        actual = Executable(lower(graph, isa, "Schedules", schedules=chosen))(values)
        for name, value in expected.items():
            np.testing.assert_array_equal(actual[name], value, err_msg=f"{name} {chosen}")


def product(
    x: Node, filters: int, kernel: int, scale: float | Array, weights: Array | None = None,
    bias: int = 0, groups: int = 1, **attributes: object,
) -> Node:  # fmt: skip
    """A convolution of random weights."""
    rng = np.random.default_rng(filters)
    shape = (filters, x.shape[1] // groups, kernel, kernel)
    if weights is None:
        weights = rng.integers(-127, 127, shape, np.int8, endpoint=True)
    scales = fixed_point(np.broadcast_to(scale, (filters,)))
    operands = weights, np.full(filters, bias, np.int32), *scales
    op = QuantizedConv2D(groups=groups, **attributes)  # type: ignore[arg-type]
    return make(op, x, *(constant(v) for v in operands), name=f"conv{filters}")


def agrees(target: str, inputs: dict[str, Array], outputs: list[Node], threads: int = 1) -> None:
    nodes = [n for output in outputs for n in Graph((), (output,), ("y",)).order()]
    ports = {n.name: n for n in nodes if n.name in inputs}
    names = tuple(f"y{i}" for i in range(len(outputs)))
    graph = Graph(tuple(ports[name] for name in inputs), tuple(outputs), names)
    expected = run(graph, inputs)
    plan = lower(assign_layout(graph), find_isa(target), "Case", threads=threads)
    actual = Executable(plan)(inputs)
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_extreme_values(target: str, kind: type) -> None:
    """All activations and weights at their bounds: nothing saturates on the way."""
    require(target)
    info = np.iinfo(kind)
    outputs, inputs = [], {}
    for number, value in enumerate((info.min, info.max)):
        x = np.full((1, 64, 6, 6), value, kind)
        inputs[f"x{number}"] = x
        node = graph_input(f"x{number}", x.shape, DType.from_numpy(x.dtype))
        for weight in (-128, 127):
            for groups in (1, 64):
                w = np.full((64, 64 // groups, 3, 3), weight, np.int8)
                scale = 100 / (64 / groups * 9 * 128 * 255)
                outputs.append(product(node, 64, 3, scale, w, groups=groups, pads=(1, 1, 1, 1)))
    agrees(target, inputs, outputs)


@pytest.mark.parametrize("target", TARGETS)
def test_every_factor(target: str) -> None:
    """From 2^-40 to 2^20, and zero: one convolution with, one without factors above 1/4."""
    require(target)
    x = np.random.default_rng(1).integers(-128, 127, (1, 16, 5, 7), np.int8, endpoint=True)
    node = graph_input("x", x.shape, DType.I8)
    large = np.array([0.0, *np.exp2(np.linspace(-40, 20, 63))])
    small = np.array([0.0, *np.exp2(np.linspace(-40, -2.5, 63))])
    agrees(target, {"x": x}, [product(node, 64, 1, s, y_zero=-77) for s in (large, small)])


@pytest.mark.parametrize("target", TARGETS)
def test_parts_of_wider_tensors(target: str) -> None:
    """Inputs that are channel slices, outputs inside concats, and those read whole elsewhere."""
    require(target)
    x = np.random.default_rng(2).integers(-128, 127, (1, 48, 9, 8), np.int8, endpoint=True)
    node = graph_input("x", x.shape, DType.I8)
    wide = product(node, 48, 1, 0.0004)
    halves = [make(Slice.along(wide.shape, 1, first, 24), wide) for first in (0, 24)]
    same = {"pads": (1, 1, 1, 1), "x_zero": 3}
    left = product(halves[0], 40, 3, 0.0005, **same)
    right = product(halves[1], 24, 3, 0.003, groups=24, **same)
    valid = product(halves[0], 20, 3, 0.0005)
    joined = make(Concat(1), left, right)
    total = make(QuantizedAdd(0.6, 0.7, 1, -2, 3), *halves)
    agrees(target, {"x": x}, [product(joined, 17, 1, 0.0005), total, valid])


@pytest.mark.parametrize("target", TARGETS)
def test_softmax_of_parts_and_at_its_bounds(target: str) -> None:
    """Parts of wider tensors along channels and rows; all elements equal, or 255 apart."""
    require(target)
    rng = np.random.default_rng(4)
    x = rng.integers(-128, 127, (1, 48, 3, 70), np.int8, endpoint=True)
    node = graph_input("x", x.shape, DType.I8)
    wide = product(node, 48, 1, 0.0004)
    halves = [make(Slice.along(wide.shape, 1, first, 24), wide) for first in (0, 24)]
    over = [make(QuantizedSoftmax(axis, 0.04, 1 / 256, -128), half)
            for axis, half in zip((1, 3), halves, strict=True)]  # fmt: skip
    joined = make(Concat(1), *over)
    inputs, outputs = {"x": x}, [product(joined, 17, 1, 0.0005)]
    for length in (1, 63, 64, 1000):
        rows = np.stack([np.full(length, v) for v in (-128, 127, 3)] * 2).astype(np.int8)
        rows[3:, length // 2] = 127, -128, 4
        inputs[f"rows{length}"] = rows
        some = graph_input(f"rows{length}", rows.shape, DType.I8)
        for scale in (1e-9, 0.1, 1e9):
            for y_scale in (2.0**-24, 1 / 256, 2.0**24):
                outputs.append(make(QuantizedSoftmax(1, scale, y_scale, -128), some))
    agrees(target, inputs, outputs)


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_panels_of_first_layers_without_gaps(kind: type) -> None:
    """Rows of 5 to 21 bytes, in panels of 8 pixels and of what is left: 1 to 7."""
    target = "arm-neon+dotprod"
    require(target)
    isa, info = find_isa(target), np.iinfo(kind)
    inputs, outputs, depths = {}, [], []
    cases = ((3, 7, 2, 148), (3, 3, 2, 28), (3, 5, 1, 76), (1, 5, 1, 28), (2, 3, 3, 20))
    for number, (channels, kernel, stride, depth) in enumerate(cases):
        for columns in (17, 20, 22, 46):
            name = f"x{number}_{columns}"
            shape = (1, channels, 9, columns)
            inputs[name] = RNG.integers(info.min, info.max, shape, kind, endpoint=True)
            x = graph_input(name, shape, DType.from_numpy(kind))
            y = product(
                x, 24, kernel, 0.001, stride=(stride, stride), x_zero=int(info.min) + 9,
                pads=(1, 2, 1, 1),
            )  # fmt: skip
            outputs.append(replace(y, name=f"y{len(outputs)}"))
            depths.append(depth)
    names = tuple(node.name for node in outputs)
    graph = Graph(tuple(n.inputs[0] for n in outputs), tuple(outputs), names)
    expected = run(graph, inputs)
    graph = assign_layout(graph)
    layers = [node for node in graph.order() if isinstance(node.op, QuantizedConv2D)]
    found = {node.name: [c.schedule for c in candidates(node, isa)] for node in layers}
    chosen = {
        name: next(s for s in schedules if s.panels) if any(s.panels for s in schedules) else
        schedules[0] for name, schedules in found.items()
    }  # fmt: skip
    plan = lower(graph, isa, "First", schedules=chosen)
    for step in plan.steps:
        if step.schedule.panels:
            number = int(step.node.name[1:])
            assert step.weights["weights"].nbytes == depths[number] * 24
    assert sum(step.schedule.panels for step in plan.steps) >= 16
    actual = Executable(plan)(inputs)
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


def summed(conv: Node, other: Node, **attributes: object) -> Node:
    """The convolution with the sum in its epilogue."""
    added = QuantizedAdd(0.8, 0.7, b_zero=-2, y_zero=3, **attributes)  # type: ignore[arg-type]
    return make(replace(conv.op, addition=added), *conv.inputs, other)  # type: ignore[call-arg]


@pytest.mark.parametrize("target", TARGETS)
def test_sums_with_parts_of_wider_tensors(target: str) -> None:
    """What is added is a channel slice, lies in a concat, is the input itself, or dies there."""
    require(target)
    x = np.random.default_rng(3).integers(-128, 127, (2, 40, 5, 7), np.int8, endpoint=True)
    node = graph_input("x", x.shape, DType.I8)
    wide = product(node, 80, 1, 0.0004)
    halves = [make(Slice.along(wide.shape, 1, first, 40), wide) for first in (0, 40)]
    same = {"pads": (1, 1, 1, 1), "x_zero": 3}
    first = summed(product(halves[0], 40, 3, 0.0005, **same), halves[1])
    own = summed(product(first, 40, 1, 0.0005), first, low=-100, high=90)
    joined = make(Concat(1), own, product(first, 24, 1, 0.0006))
    last = summed(product(joined, 40, 1, 0.0005), own)
    agrees(target, {"x": x}, [last, summed(product(last, 40, 3, 0.0004, **same), last)])


@pytest.mark.parametrize("target", TARGETS)
def test_results_do_not_depend_on_threads(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require(target)
    monkeypatch.setattr(variant, "_WORTH_SHARING", -1)
    for cls in (QuantizedConv2D, QuantizedDense, QuantizedSoftmax):
        graph, values = network_of(cls)
        expected = run(graph, values)
        plan = lower(assign_layout(graph), find_isa(target), "Samples", threads=3)
        actual = Executable(plan, flags=("-Werror", "-Wall"))(values)
        for name, value in expected.items():
            np.testing.assert_array_equal(actual[name], value, err_msg=name)


@pytest.mark.parametrize("target", TARGETS)
def test_layers_of_all_depths_stand_in_one_class(target: str) -> None:
    """Functions of one name have one text."""
    outputs, inputs = [], []
    for channels in (3, 8, 16, 24, 40):
        x = graph_input(f"x{channels}", (1, channels, 9, 9), DType.I8)
        inputs.append(x)
        for number, same in enumerate(({"pads": (1, 1, 1, 1)}, {"dilation": (2, 2)}, {})):
            y = product(x, 64 + number, 3, 0.0001, **same)
            outputs += [y, product(y, 40, 1, 0.001), product(y, y.shape[1], 3, 0.01,
                                                             groups=y.shape[1])]  # fmt: skip
    names = tuple(f"y{i}" for i in range(len(outputs)))
    graph = assign_layout(Graph(tuple(inputs), tuple(outputs), names))
    files = emit_cpp.emit(lower(graph, find_isa(target), "Many"), PRIVATE_INFO)
    assert b"Many" in files["Many.cpp"]


def test_sums_that_may_leave_32_bits_are_refused() -> None:
    x = graph_input("x", (1, 16, 3, 3), DType.I8)
    weights = np.full((4, 16, 1, 1), 127, np.int8)
    y = product(x, 4, 1, 0.001, weights, bias=2**31 - 1)
    graph = assign_layout(Graph((x,), (y,), ("y",)))
    with pytest.raises(MdlcError, match="leave 32 bits"):
        lower(graph, find_isa("generic"), "Large")


def test_weights_are_bytes() -> None:
    """On every target the packed weights of a 1x1 convolution take a byte each."""
    x = graph_input("x", (1, 64, 4, 4), DType.I8)
    graph = assign_layout(Graph((x,), (product(x, 64, 1, 0.001),), ("y",)))
    for target in TARGETS:
        (step,) = lower(graph, find_isa(target), "Bytes").steps
        assert step.weights["weights"].nbytes == 64 * 64


@pytest.mark.parametrize("cls", [QuantizedConv2D, QuantizedDense, QuantizedSoftmax])
def test_emitted_code_reads_only_what_is_there(cls: type[Op]) -> None:
    """Under AddressSanitizer and UndefinedBehaviorSanitizer."""
    require("host")
    graph, values = network_of(cls)
    plan = lower(assign_layout(graph), find_isa("host"), "Samples")
    Executable(plan, flags=("-fsanitize=address,undefined", "-fno-sanitize-recover=all"))(values)
