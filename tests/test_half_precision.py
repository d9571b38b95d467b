"""--precision fp16: long sums, networks, the range guard and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mdlc
from benchmarks import half_on_host
from mdlc.cli import invoke
from mdlc.codegen.gemm.k_split import parts
from mdlc.codegen.isa.host import runs_here
from mdlc.codegen.isa.registry import find_isa
from mdlc.codegen.plan.lowering import lower
from mdlc.codegen.run.executable import Executable
from mdlc.codegen.weights.encoding import Encoding, quantise
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.interpreter import run
from mdlc.compiler.ir import Graph, make
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.conv2d import Conv2D
from mdlc.compiler.ops.dense import Dense
from mdlc.compiler.ops.input import graph_input
from mdlc.compiler.ops.relu import Relu
from mdlc.compiler.types import Array, DType
from mdlc.compiler.values import values
from mdlc.inputs.preprocess import Preprocess
from mdlc.passes.fp32_to_fp16 import LARGEST, rounded
from mdlc.passes.layout import assign_layout
from mdlc.passes.value_bounds import value_bounds
from mdlc.precision.fp16 import HalfPrecision
from mdlc.precision.quantize import Quantize
from tests.shared_data import MODELS, model_inputs, model_path, needs_shared, onnxruntime_outputs
from tests.targets import HALF_TARGETS, require

TARGET = "arm-neon+fp16"
# Largest |difference| over the largest |expected|, as for models that are in half precision.
BOUND = 2e-2
# Softmax makes relative errors of probabilities of absolute ones of its operands.
PROBABILITY_BOUND = 0.1


@given(
    st.integers(1, 700),
    st.lists(st.integers(2, 6), max_size=2),
    st.sampled_from([0, 32, 128]),
    st.booleans(),
)
@settings(deadline=None)
def test_parts_are_the_depth_once(run_: int, counts: list[int], longest: int, panels: bool) -> None:
    """Every step of the depth is in one part, at its place in the input and in the weights."""
    taps = tuple((count, 1000 * 10**i) for i, count in enumerate(counts))
    offsets = [0]
    for count, step in taps:
        offsets = [o + i * step for o in offsets for i in range(count)]
    depth = [o + k for o in offsets for k in range(run_)]
    packed = list(range(len(depth))) if panels else depth
    found = parts(run_, taps, len(depth), longest, 8, panels=panels)
    covered = []
    for part in found:
        for i in range(part.count):
            x, before = part.x + i * part.x_step, part.before + i * part.depth
            inner, length = [x], part.depth
            if not panels:
                length = part.run
                for count, step in part.taps:
                    inner = [o + j * step for o in inner for j in range(count)]
            here = [o + k for o in inner for k in range(length)]
            assert packed[before : before + len(here)] == here
            covered += here
            assert not longest or len(here) <= longest * 5 // 4 + 8
    assert covered == packed
    assert [part.first for part in found] == [True] + [False] * (len(found) - 1)
    assert [part.last for part in found] == [False] * (len(found) - 1) + [True]


def _uniform(generator: np.random.Generator, *shape: int) -> Array:
    return generator.uniform(-1, 1, shape).astype(np.float32)


def long_sums() -> tuple[Graph, dict[str, Array]]:
    """Layers whose sums have hundreds of products, of every way to walk through the depth."""
    generator = np.random.default_rng(5)
    inputs, outputs, given_ = [], [], {}
    cases = [
        ((1, 600, 7, 7), (72, 600, 1, 1), Conv2D(activation=Relu())),
        ((1, 600, 7, 7), (24, 600, 1, 1), Conv2D(activation=Relu(), residual=True)),
        ((1, 70, 9, 9), (20, 70, 3, 3), Conv2D(pads=(1, 1, 1, 1))),
        ((1, 260, 5, 6), (16, 130, 3, 3), Conv2D(groups=2, activation=Relu())),
        ((2, 200, 6, 6), (9, 200, 2, 2), Conv2D(dilation=(2, 2), residual=True)),
    ]
    for number, (shape, filters, op) in enumerate(cases):
        x = graph_input(f"x{number}", shape, DType.F32)
        given_[x.name] = _uniform(generator, *shape)
        inputs.append(x)
        weights = constant(_uniform(generator, *filters))
        operands = [x, weights, constant(_uniform(generator, filters[0]))]
        if op.residual:
            plain = Conv2D(op.stride, op.pads, op.dilation, op.groups)
            size = make(plain, *operands).shape
            other = graph_input(f"r{number}", size, DType.F32)
            given_[other.name] = _uniform(generator, *size)
            inputs.append(other)
            operands.append(other)
        outputs.append(make(op, *operands, name=f"y{number}"))
    x = graph_input("d", (3, 1000), DType.F32)
    given_["d"] = _uniform(generator, 3, 1000)
    inputs.append(x)
    weights = constant(_uniform(generator, 41, 1000))
    outputs.append(make(Dense(), x, weights, constant(_uniform(generator, 41)), name="dense"))
    names = tuple(node.name for node in outputs)
    return assign_layout(Graph(tuple(inputs), tuple(outputs), names, "sums")), given_


def half_of(graph: Graph, target: str) -> tuple[Graph, HalfPrecision]:
    pass_ = HalfPrecision(find_isa(target), graph, Preprocess(), None, lambda text: None)
    return pass_.fp32_to_fp16(graph), pass_


@pytest.mark.parametrize("target", HALF_TARGETS)
def test_long_sums(target: str) -> None:
    require(target)
    graph, given_ = long_sums()
    narrow, _ = half_of(graph, target)
    plan = lower(narrow, find_isa(target), "Sums")
    assert len(plan.half_steps) >= 6
    actual = Executable(plan)(given_)
    for name, expected in run(graph, given_).items():
        # 64 products at a time: about as good as one product, and far better than all in one.
        error = np.abs(actual[name] - expected).max() / np.abs(expected).max()
        assert error < 4e-3, name


def large_biases() -> tuple[Graph, dict[str, Array]]:
    """Layers whose sums are small beside a bias that cancels most of them."""
    generator = np.random.default_rng(6)
    inputs, outputs, given_ = [], [], {}
    cases = [
        ((1, 60, 7, 7), (24, 60, 1, 1), 1),
        ((1, 3, 12, 12), (20, 3, 3, 3), 1),
        ((1, 20, 9, 9), (20, 1, 3, 3), 20),
        ((1, 19, 9, 9), (19, 1, 5, 5), 19),
        ((1, 4, 3, 3), (7, 4, 1, 1), 1),
    ]
    for number, (shape, filters, groups) in enumerate(cases):
        x = graph_input(f"x{number}", shape, DType.F32)
        given_[x.name] = generator.uniform(0.5, 1.5, shape).astype(np.float16).astype(np.float32)
        pads = (filters[2] // 2,) * 4
        weights = generator.uniform(-1, 1, filters).astype(np.float16).astype(np.float32)
        bias = np.full(filters[0], 16.0, np.float32)
        op = Conv2D(pads=pads, groups=groups)
        inputs.append(x)
        outputs.append(make(op, x, constant(weights), constant(bias), name=f"y{number}"))
    names = tuple(node.name for node in outputs)
    return assign_layout(Graph(tuple(inputs), tuple(outputs), names, "biases")), given_


@pytest.mark.parametrize("target", HALF_TARGETS)
def test_biases_are_added_last(target: str) -> None:
    """Roundings are of the size of the sums, not of the bias."""
    require(target)
    graph, given_ = large_biases()
    narrow, _ = half_of(graph, target)
    actual = Executable(lower(narrow, find_isa(target), "Biases"))(given_)
    for name, expected in run(graph, given_).items():
        # One rounding at 16 to 32 is 2^-7 at most, 0.6 of it in the mean; where a bias comes
        # first, every product has one.
        rms = float(np.sqrt(np.mean((actual[name] - expected) ** 2)))
        assert rms < 1.4 * 2.0**-7, name


@given(st.integers(0, 1000), st.sampled_from([1, 2, 3, 5]), st.floats(1e-3, 1e3))
@settings(deadline=None, max_examples=50)
def test_filters_keep_their_sums(seed: int, taps: int, scale: float) -> None:
    generator = np.random.default_rng(seed)
    filters = (generator.normal(size=(6, 5, taps, taps)) * scale).astype(np.float32)
    found = rounded(filters)
    assert found.dtype == np.float16
    nearest = filters.astype(np.float16)
    spacing = np.spacing(np.abs(nearest)).astype(np.float64)
    assert (np.abs(found - filters.astype(np.float64)) <= 1.5 * spacing).all()
    if taps == 1:
        np.testing.assert_array_equal(found, nearest)
        return
    lost, plain = (
        np.abs(each.sum((2, 3), dtype=np.float64) - filters.sum((2, 3), dtype=np.float64)).mean()
        for each in (found, nearest)
    )
    assert lost < plain


def test_filters_at_the_end_of_the_range() -> None:
    filters = np.full((1, 1, 3, 3), 65503.0, np.float32)
    assert np.isfinite(rounded(filters)).all()


FLOAT_MODELS = [name for name, model in MODELS.items() if not model.quantised]


@cache
def on_host(name: str) -> Executable:
    isa = half_on_host.isa()
    if not runs_here(isa):
        pytest.skip("needs a processor with AVX2 and F16C")
    compiled = mdlc.compile(model_path(name), "generic")
    half = HalfPrecision(isa, compiled.imported, Preprocess(), None, lambda text: None)
    return Executable(lower(half.fp32_to_fp16(compiled.graph), isa, "Half"))


def error(actual: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    return max(
        float(np.abs(actual[name].astype(np.float64) - value).max() / np.abs(value).max())
        for name, value in expected.items()
        if value.dtype.kind == "f"
    )


def is_probability(value: Array) -> bool:
    return bool(value.dtype.kind == "f" and value.min() >= 0 and value.max() <= 1)


def bound(expected: Mapping[str, Array]) -> float:
    return PROBABILITY_BOUND if any(map(is_probability, expected.values())) else BOUND


@needs_shared
@pytest.mark.parametrize("name", FLOAT_MODELS)
def test_networks_in_half_precision(name: str) -> None:
    (inputs,) = model_inputs(name)
    expected = onnxruntime_outputs(name, inputs)
    actual = on_host(name)(inputs)
    for output, value in expected.items():
        if value.dtype.kind != "f":  # a mask of classes
            assert (actual[output] == value).mean() >= 0.98
            continue
        difference = actual[output].astype(np.float64) - value
        # Single elements of large maps stray further than all together.
        assert np.sqrt(np.mean(difference**2) / np.mean(value.astype(np.float64) ** 2)) <= BOUND
        assert np.abs(difference).max() <= max(3 * BOUND, bound(expected)) * np.abs(value).max()


@needs_shared
@pytest.mark.parametrize("target", HALF_TARGETS)
@pytest.mark.parametrize("name", ["resnet8_cifar10", "mobilenet_vww", "mnist_cntk"])
def test_networks_on_the_target(name: str, target: str) -> None:
    require(target)
    (inputs,) = model_inputs(name)
    compiled = mdlc.compile(model_path(name), target, precision="fp16")
    assert len(compiled.plan.half_steps) > len(compiled.plan.steps) // 2
    expected = onnxruntime_outputs(name, inputs)
    actual = compiled.build()(inputs)
    assert error(actual, expected) <= bound(expected)
    # The host's way of computing it is the phone's.
    if runs_here(half_on_host.isa()):
        assert error(actual, on_host(name)(inputs)) <= 5e-3


@needs_shared
@pytest.mark.parametrize("name", ["mobilenet_v2_imagenet", "mobilenet_v1_075_imagenet"])
def test_top_1_in_half_precision(name: str) -> None:
    frames = model_inputs(name, 100)
    actual = on_host(name).run_many(frames)
    (output,) = actual[0]
    expected = [onnxruntime_outputs(name, frame)[output].reshape(-1) for frame in frames]
    found = [int(frame[output].argmax()) for frame in actual]
    wanted = [int(value.argmax()) for value in expected]
    assert sum(a == b for a, b in zip(found, wanted, strict=True)) >= 97
    # Where two classes are level, roundings decide; elsewhere nothing changes.
    for value, mine, best in zip(expected, found, wanted, strict=True):
        assert value[mine] >= 0.75 * value[best]


def growing(scale: float) -> onnx.ModelProto:
    """Three convolutions, the second of which makes values `scale` times larger."""
    generator = np.random.default_rng(3)
    nodes, weights, x = [], [], "x"
    for number, factor in enumerate((1.0, scale, 1.0 / scale)):
        value = (generator.uniform(0, 1, (8, 8 if number else 3, 1, 1)) * factor / 8).astype("f4")
        weights.append(onnx.numpy_helper.from_array(value, f"w{number}"))
        nodes.append(onnx.helper.make_node("Conv", [x, f"w{number}"], [f"c{number}"]))
        nodes.append(onnx.helper.make_node("Relu", [f"c{number}"], [f"y{number}"]))
        x = f"y{number}"
    graph = onnx.helper.make_graph(
        nodes,
        "growing",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 6, 6])],
        [onnx.helper.make_tensor_value_info("y2", onnx.TensorProto.FLOAT, [1, 8, 6, 6])],
        weights,
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=9)


def test_a_layer_that_leaves_the_range_stays_in_float() -> None:
    compiled = mdlc.compile(growing(1e6), TARGET, name="Growing", precision="fp16")
    assert set(compiled.plan.kept_float) == {"y1", "y2"}
    assert {step.node.name for step in compiled.plan.half_steps} == {"y0"}
    said = json.loads(compiled.files()["Growing.json"])["precision"]
    assert said["asked"] == "fp16"
    assert set(said["kept_float"]) == {"y1", "y2"}
    assert "1 of" in compiled.files()["Growing.h"].decode()
    small = mdlc.compile(growing(10.0), TARGET, precision="fp16")
    assert not small.plan.kept_float
    assert len([s for s in small.plan.half_steps if isinstance(s.node.op, Conv2D)]) == 3


def test_kept_layers_compute_what_half_precision_cannot() -> None:
    require(TARGET)
    x = np.random.default_rng(0).uniform(0, 2, (1, 3, 6, 6)).astype(np.float32)
    model = growing(1e6)
    wanted = mdlc.compile(model, "generic").build()(x=x)["y2"]
    actual = mdlc.compile(model, TARGET, precision="fp16").build()(x=x)["y2"]
    assert np.isfinite(actual).all()
    np.testing.assert_allclose(actual, wanted, rtol=3e-3)


def test_calibration_decides_before_estimates(tmp_path: Path) -> None:
    """Estimates take inputs to be about 1; ten thousand times that leaves the range."""
    model = growing(100.0)
    assert not mdlc.compile(model, TARGET, precision="fp16").plan.kept_float
    generator = np.random.default_rng(1)
    for scale, kept in ((1.0, set()), (1e4, {"y1", "y2"})):
        file = tmp_path / f"{scale:g}.npz"
        np.savez(file, x=generator.uniform(0, scale, (4, 1, 3, 6, 6)).astype(np.float32))
        compiled = mdlc.compile(model, TARGET, precision="fp16", calibrate=file)
        assert set(compiled.plan.kept_float) == kept
        assert all("calibration" in reason for reason in compiled.plan.kept_float.values())


def test_proven_bounds_hold() -> None:
    """No input inside its bound makes a value beyond the proven peak, or near the likely one."""
    graph, given_ = long_sums()
    peaks = value_bounds(graph, {node.name: values(1.0, 0.0, 0.58) for node in graph.inputs})
    found = run(graph, given_)
    for name, node in zip(graph.output_names, graph.outputs, strict=True):
        largest = float(np.abs(found[name]).max())
        assert largest <= peaks[node].proven
        assert largest <= peaks[node].likely
        assert peaks[node].likely < LARGEST


def test_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "growing.onnx"
    onnx.save(growing(1e6), path)
    command = [str(path), "--target", TARGET, "--precision", "fp16"]
    assert invoke([*command, "-o", str(tmp_path / "out")]) == 0
    assert "2 layers stay in float" in capsys.readouterr().out
    header = tmp_path / "out" / "Growing.h"
    assert "--precision fp16" in " ".join(header.read_text().replace("//", "").split())
    assert invoke(["explain", *command]) == 0
    shown = capsys.readouterr().out
    assert "in float: values" in shown
    assert "in half precision: its range is" in shown


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"precision": "fp8"}, "fp8"),
        ({"precision": "fp16", "weights_encoding": "int8"}, "--weights-encoding"),
        ({"precision": "fp16", "target": "metal"}, "--precision"),
        ({"calibrate": "x.npz"}, "--calibrate"),
        ({"precision": "fp16", "quantize": Quantize([{}])}, "contradicts --quantize"),
        ({"precision": "bf16", "quantize": Quantize([{}]), "target": "generic"}, "--precision"),
        ({"precision": "fp16", "calibrate": "missing.npz"}, "missing.npz"),
    ],
)
def test_contradictions_are_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(MdlcError, match=word):
        mdlc.compile(growing(1.0), **{"target": TARGET, **options})


@pytest.mark.parametrize(("precision", "bits"), [("fp16", 11), ("bf16", 8)])
def test_other_targets_store_weights_in_16_bits(precision: str, bits: int) -> None:
    """The file is half as long; arithmetic is that of float32 on the rounded weights."""
    model = growing(2.0)
    x = np.random.default_rng(4).uniform(-1, 1, (1, 3, 6, 6)).astype(np.float32)
    whole = mdlc.compile(model, "generic", name="Net")
    small = mdlc.compile(model, "generic", name="Net", precision=precision)
    assert len(small.plan.encoded) == 3
    assert not small.plan.half_steps
    said = json.loads(small.files()["Net.json"])
    assert said["precision"]["asked"] == precision
    assert f"weights {precision}, arithmetic fp32" in small.files()["Net.h"].decode()
    wanted, actual = whole.build()(x=x)["y2"], small.build()(x=x)["y2"]
    error = float(np.abs(actual - wanted).max() / np.abs(wanted).max())
    assert 0 < error < 4 * 2.0**-bits
    rounded = mdlc.compile(model, "generic", weights_encoding=precision).build()(x=x)["y2"]
    np.testing.assert_array_equal(actual, rounded)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_bf16_is_the_nearest(value: float) -> None:
    weights = np.array([value], np.float32)
    (decoded,) = quantise(weights, np.zeros(1, int), Encoding("bf16"), "layer").decoded
    bits = decoded[None].view(np.uint32)
    assert bits[0] & 0xFFFF == 0
    here = abs(float(decoded) - value)
    for step in (-(1 << 16), 1 << 16):
        if 0 <= int(bits[0]) + step < 1 << 32:
            other = np.array([int(bits[0]) + step], np.uint32).view(np.float32)[0]
            assert not np.isfinite(other) or here <= abs(float(other) - value)
