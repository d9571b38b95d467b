"""Pruned weights: which go, kernels that leave them out, and that these never cost more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import mdlc
from mdlc.cli import invoke
from mdlc.codegen.isa.registry import find_isa
from mdlc.codegen.kernel import Candidate, candidates
from mdlc.codegen.kernels.conv_sparse import ConvSparse
from mdlc.codegen.plan.encoding_choice import encode_plan
from mdlc.codegen.plan.lowering import lower
from mdlc.codegen.plan.schedule_table import layer_key
from mdlc.codegen.run import instruction_counts
from mdlc.codegen.run.executable import Executable
from mdlc.codegen.weights.encoding import parse_encoding
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.interpreter import run
from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.onnx_import import import_model
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.dense import Dense
from mdlc.compiler.ops.input import graph_input
from mdlc.compiler.ops.prelu import PRelu
from mdlc.compiler.ops.relu import Relu
from mdlc.compiler.types import Array, DType
from mdlc.passes.layout import assign_layout
from mdlc.passes.prune_weights import prunable_layers, prune_weights, sparsity, weight_mask
from mdlc.pipeline import optimise
from tests.emitted_code import block_model
from tests.shared_data import model_inputs, model_path, needs_shared
from tests.targets import FLOAT_TARGETS, require


def _layers() -> tuple[Graph, dict[str, Array]]:
    """Sparse layers of all the kinds that the kernel tells apart, blocks of other lengths."""
    random = np.random.default_rng(0)
    inputs, outputs, values = [], [], {}

    def add(op: Conv2D | Dense, x: tuple[int, ...], w: tuple[int, ...], ratio: float, block: int,
            slope: bool = False) -> None:  # fmt: skip
        number = len(outputs)
        data = random.standard_normal(x).astype(np.float32)
        weights = random.standard_normal(w).astype(np.float32)
        weights *= weight_mask(weights, ratio, block, "w")
        node = graph_input(f"x{number}", x, DType.F32)
        inputs.append(node)
        values[node.name] = data
        operands = [node, constant(weights), constant(random.standard_normal(w[0], np.float32))]
        if slope:
            operands.append(constant(random.uniform(0, 1, w[0]).astype(np.float32)))
        if getattr(op, "residual", False):
            other = graph_input(f"r{number}", (x[0], w[0], *x[2:]), DType.F32)
            inputs.append(other)
            values[other.name] = random.standard_normal(other.shape, np.float32)
            operands.append(other)
        outputs.append(make(op, *operands, name=f"y{number}"))

    relu = Relu()
    add(Conv2D(activation=relu), (1, 24, 9, 11), (40, 24, 1, 1), 0.8, 8)
    add(Conv2D(residual=True, activation=relu), (1, 16, 5, 5), (16, 16, 1, 1), 0.7, 4)
    add(Conv2D(stride=(2, 2)), (1, 12, 10, 9), (19, 12, 1, 1), 0.9, 1)
    add(Conv2D(pads=(1, 1, 1, 1), activation=PRelu()), (2, 10, 7, 6), (21, 10, 3, 3), 0.8, 4, True)
    add(Conv2D(), (3, 8, 4, 4), (33, 8, 1, 1), 0.6, 16)
    add(Dense(activation=relu), (1, 100), (37, 100), 0.9, 1)
    add(Dense(), (6, 31), (18, 31), 0.8, 4)
    names = tuple(f"y{i}" for i in range(len(outputs)))
    return Graph(tuple(inputs), tuple(outputs), names, "sparse"), values


def _sparse(node: Node, target: str) -> list[Candidate]:
    found = candidates(node, find_isa(target))
    return [c for c in found if isinstance(c.kernel, ConvSparse)]


@pytest.mark.parametrize("target", FLOAT_TARGETS)
def test_every_sparse_schedule_agrees_with_reference(target: str) -> None:
    require(target)
    graph, values = _layers()
    graph = assign_layout(graph)
    expected = run(graph, values)
    found = {node.name: _sparse(node, target) for node in graph.outputs}
    isa = find_isa(target)
    for node in graph.outputs:
        taps = isinstance(node.op, Conv2D) and node.inputs[1].shape[2:] != (1, 1)
        assert bool(found[node.name]) is (isa.f32.panels is not None or not taps), node
    most = max(len(each) for each in found.values())
    rounds = [(0, 1), (most // 2, 2), (most - 1, 1)]
    for number, threads in rounds:
        chosen = {
            name: each[min(number, len(each) - 1)].schedule for name, each in found.items() if each
        }
        plan = lower(graph, isa, "Sparse", schedules=chosen, threads=threads)
        flags = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")
        actual = Executable(plan, flags=flags)(values)
        for name, value in expected.items():
            np.testing.assert_allclose(
                actual[name], value, rtol=1e-4, atol=1e-4, err_msg=f"{name} {chosen.get(name)}"
            )


def _pointwise(channels: int, filters: int, size: int, ratio: float, block: int) -> Graph:
    random = np.random.default_rng(0)
    weights = random.standard_normal((filters, channels, 1, 1)).astype(np.float32)
    if ratio:
        weights *= weight_mask(weights, ratio, block, "w")
    x = graph_input("x", (1, channels, size, size), DType.F32)
    bias = constant(random.standard_normal(filters, np.float32))
    y = make(Conv2D(activation=Relu()), x, constant(weights), bias, name="y")
    return optimise(Graph((x,), (y,), ("y",), "pointwise"))


def _layer(graph: Graph) -> Node:
    return next(node for node in graph.order() if isinstance(node.op, Conv2D))


def test_sparse_kernels_cost_fewer_instructions_than_dense_ones_where_they_are_chosen() -> None:
    """On AArch64, counted: whatever is chosen, never more than the same layer without zeros."""
    target = "arm-neon"
    require(target)
    isa = find_isa(target)
    dense = {}
    chosen = set()
    for ratio, block in ((0.0, 1), (0.3, 4), (0.5, 1), (0.6, 4), (0.8, 8), (0.95, 1)):
        graph = _pointwise(64, 48, 14, ratio, block)
        plan = lower(graph, isa, "Pointwise")
        try:
            counted = instruction_counts.count(Executable(plan)).total[0]
        except MdlcError as error:
            pytest.skip(f"no instructions counted: {error}")
        kernel = candidates(_layer(graph), isa)[0].kernel
        chosen.add(kernel.name)
        if not ratio:
            dense[kernel.name] = counted
            continue
        assert counted <= dense["conv_direct"] * 1.001, (ratio, block)
        if ratio >= 0.8:
            assert counted < 0.6 * dense["conv_direct"], (ratio, block)
    assert chosen == {"conv_direct", "conv_sparse"}


def test_layers_with_few_zeros_stay_dense() -> None:
    for target in FLOAT_TARGETS:
        isa = find_isa(target)
        for ratio in (0.0, 0.1):
            node = _layer(_pointwise(32, 32, 14, ratio, 1))
            assert candidates(node, isa)[0].kernel.name != "conv_sparse"
        node = _layer(_pointwise(128, 128, 14, 0.9, max(isa.f32.lanes, 1)))
        assert candidates(node, isa)[0].kernel.name == "conv_sparse", target


def test_tables_of_schedules_tell_sparse_layers_apart() -> None:
    keys = [layer_key(_layer(_pointwise(32, 32, 14, r, 1))) for r in (0.0, 0.1, 0.5, 0.55, 0.9)]
    assert len(set(keys)) == 3
    assert keys[0] == keys[1]
    assert keys[2] == keys[3]
    assert "90 % zeros" in keys[4] or "80 % zeros" in keys[4]


@pytest.mark.parametrize("encoding", ["raw+huffman", "int8+huffman", "clustered:3+huffman", "fp16"])
@pytest.mark.parametrize("target", FLOAT_TARGETS)
def test_sparse_layers_are_decoded_where_they_are_packed(target: str, encoding: str) -> None:
    """Weights that round to zero stay in their blocks: the pattern is the model's."""
    require(target)
    isa = find_isa(target)
    graph, values = _layers()
    first = graph.outputs[0]
    weights = np.array(first.inputs[1].constant)
    weights[8:16, np.flatnonzero(weights[8].any((1, 2)))[:1]] = 1e-7
    layer = make(first.op, first.inputs[0], constant(weights), first.inputs[2], name=first.name)
    outputs = (layer, *graph.outputs[1:])
    graph = assign_layout(Graph(graph.inputs, outputs, graph.output_names, graph.name))
    chosen = {n.name: _sparse(n, target)[0].schedule for n in graph.outputs if _sparse(n, target)}
    plan = lower(graph, isa, "Sparse", schedules=chosen)
    encoded = encode_plan(plan, parse_encoding(encoding))
    layers = [s for s in plan.steps if isinstance(s.kernel, ConvSparse)]
    assert set(chosen) == {s.node.name for s in layers}
    assert {s.name for s in layers} <= set(encoded.encoded)
    for step in encoded.steps:
        before = next(s for s in plan.steps if s.name == step.name)
        assert {k: v.shape for k, v in step.weights.items()} == {
            k: v.shape for k, v in before.weights.items()
        }
    expected = run(encoded.graph, values)
    actual = Executable(encoded)(values)
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-4, atol=1e-4, err_msg=name)


def test_the_smallest_weights_go() -> None:
    weights = np.arange(1, 25, dtype=np.float32).reshape(6, 4)
    mask = weight_mask(weights, 0.5, 1, "w")
    assert np.array_equal(mask, weights > 12)
    blocks = weight_mask(weights, 0.5, 4, "w")  # of channels 0 to 3, and of 4 and 5
    assert np.array_equal(blocks, np.repeat([[False], [True]], [4, 2], 0).repeat(4, 1))
    with pytest.raises(MdlcError, match="would empty it"):
        weight_mask(np.ones((4, 1), np.float32), 0.9, 4, "w")


@needs_shared
def test_layers_that_read_few_channels_keep_their_weights() -> None:
    graph = optimise(import_model(model_path("mobilenet_vww")), stop_after="remove_dead_channels")
    pruned = prune_weights(graph, 0.7, 4)
    shares = {n.name: sparsity(n) for n in pruned.order() if isinstance(n.op, Conv2D)}
    layers = {n.name for n in prunable_layers(graph)}
    assert 10 < len(layers) < len(shares)
    for name, share in shares.items():
        assert abs(share - 0.7) < 0.06 if name in layers else share < 0.05, name


@needs_shared
def test_a_real_network_pruned_runs_here_as_in_onnxruntime(tmp_path: Path) -> None:
    small, out = tmp_path / "small.onnx", tmp_path / "out"
    common = ["compress", str(model_path("mobilenet_vww")), "--prune-weights", "0.75", "--block",
              "1x4", "-t", "generic", "--work", str(tmp_path / "work")]  # fmt: skip
    assert invoke([*common, "-o", str(small), "--report", str(tmp_path / "report")]) == 0
    assert invoke([*common, "--weights-encoding", "int8+huffman", "-o", str(out)]) == 0
    assert (out / "MobilenetVww.weights").stat().st_size < small.stat().st_size / 5
    compiled = mdlc.compile(small, "generic")
    assert any(isinstance(step.kernel, ConvSparse) for step in compiled.plan.steps)
    session = onnxruntime.InferenceSession(small)
    (inputs,) = model_inputs("mobilenet_vww", 1)
    names = [output.name for output in session.get_outputs()]
    found = compiled.build()(inputs)
    for name, value in zip(names, session.run(None, inputs), strict=True):
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prune-weights", "1"], "1 is not a share of the weights"),
        (["--prune-weights", "-0.5"], "-0.5 is not a share of the weights"),
        (["--prune-weights", "0.999"], "would empty it"),
        (["--prune-weights", "0.5", "--block", "4"], "'4' is not a block"),
        (["--prune-weights", "0.5", "--block", "1x0"], "1x0 is not a block size"),
        (["--prune-weights", "0.5", "--block", "1x512"], "1x512 is not a block size"),
        (["--block", "1x4"], "--block needs weights to prune"),
        (["--prune-weights", "0.5", "--skip-layer", "nope"], "there is no layer 'nope'"),
    ],
)
def test_bad_input_is_told_in_a_sentence(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "block.onnx"
    onnx.save(block_model(), path)
    out = tmp_path / "out"
    rest = ["-t", "generic", "--work", str(tmp_path / "work"), "-o", str(out)]
    assert invoke(["compress", str(path), *arguments, *rest]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not out.exists()
