"""States that the class keeps from one inference to the next (`--state`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

import mdlc
from mdlc.checks.verification import Run, judge, runs
from mdlc.cli import invoke
from mdlc.codegen.run.executable import Executable
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.text import difference, parse_graph, print_graph
from mdlc.compiler.types import Array
from mdlc.passes.layout import assign_layout
from tests.emitted_code import DRIVERS, WARNINGS, build, compile_to, run, sources
from tests.onnx_models import model, node, value, weight
from tests.shared_data import model_path, needs_shared
from tests.targets import require

STATES = {"cache_out": "cache", "sum_out": "sum", "older_out": "older", "left_out": "left",
          "right_out": "right"}  # fmt: skip


def sequence_model() -> onnx.ModelProto:
    """A cache of frames in front of a convolution, a running sum, a delay line, two that swap."""
    frame, cache, small = [1, 3, 1, 8], [1, 3, 2, 8], [1, 4]
    return model(
        [
            node("Concat", "cache x", "frames", axis=2),
            node("Slice", "frames one three rows", "cache_out"),
            node("Conv", "frames w", "y", kernel_shape=[3, 3], pads=[0, 1, 0, 1]),
            node("Add", "sum step", "sum_out"),
            node("Identity", "sum", "older_out"),
            node("Identity", "right", "left_out"),
            node("Add", "left one_float", "right_out"),
            node("Add", "older left", "z"),
        ],
        [
            value("x", frame),
            value("step", small),
            value("cache", cache),
            *(value(name, small) for name in ("sum", "older", "left", "right")),
        ],
        [
            value("y", [1, 5, 1, 8]),
            value("z", small),
            value("cache_out", cache),
            *(value(f"{name}_out", small) for name in ("sum", "older", "left", "right")),
        ],
        [
            weight("w", np.random.default_rng(0).standard_normal((5, 3, 3, 3))),
            weight("one", [1], np.int64),
            weight("three", [3], np.int64),
            weight("rows", [2], np.int64),
            weight("one_float", [1.0]),
        ],
    )


def frames_of(ports: dict[str, Any], count: int, seed: int = 0) -> list[dict[str, Array]]:
    random = np.random.default_rng(seed)
    return [
        {name: random.standard_normal(shape).astype(np.float32) for name, shape in ports.items()}
        for _ in range(count)
    ]


def passed_around(
    network: Executable, frames: list[dict[str, Array]], states: dict[str, str]
) -> list[dict[str, Array]]:
    """The outputs of a class that is given its states."""
    shapes = {port.name: port.type for port in network.plan.inputs}
    kept = {
        name: np.zeros(shapes[name].shape, shapes[name].dtype.numpy) for name in states.values()
    }
    found = []
    for frame in frames:
        outputs = network({**frame, **kept})
        kept = {name: outputs.pop(result) for result, name in states.items()}
        found.append(outputs)
    return found


@pytest.mark.parametrize("target", ["generic", "x86-avx2", "arm-neon"])
def test_kept_is_what_passing_around_gives(target: str) -> None:
    require(target)
    frames = frames_of({"x": [1, 3, 1, 8], "step": [1, 4]}, 6)
    network = mdlc.compile(sequence_model(), target).build()
    keeping = mdlc.compile(sequence_model(), target, state=STATES)
    assert [port.name for port in keeping.plan.inputs] == ["x", "step"]
    assert [port.name for port in keeping.plan.outputs] == ["y", "z"]
    for actual, expected in zip(
        keeping.build().run_many(frames), passed_around(network, frames, STATES), strict=True
    ):
        for name, array in expected.items():
            np.testing.assert_array_equal(actual[name], array, err_msg=name)


def test_states_of_every_kind() -> None:
    """What is constant, never read, itself, an output too, a scalar, a counter, a flag."""
    small = [1, 4]
    names = ("fixed", "unread", "same", "shown", "scalar", "count", "flag")
    shapes = {"scalar": [], "count": [1]}
    types = {"count": TensorProto.INT64, "flag": TensorProto.BOOL}
    old, new = (
        [value(f"{n}{end}", shapes.get(n, small), types.get(n, TensorProto.FLOAT)) for n in names]
        for end in ("", "_out")
    )
    network = model(
        [
            node("Identity", "constant", "fixed_out"), node("Abs", "x", "unread_out"),
            node("Identity", "same", "same_out"), node("Add", "x shown", "y"),
            node("Identity", "y", "shown_out"), node("Add", "scalar half", "scalar_out"),
            node("Add", "count one", "count_out"), node("Not", "flag", "flag_out"),
            node("Cast", "count_out", "counted", to=TensorProto.FLOAT),
            node("Where", "flag fixed x", "chosen"), node("Mul", "chosen counted", "scaled"),
            node("Add", "scaled scalar_out", "z"),
        ],
        [value("x", small), *old],
        [value("y", small), value("z", small), *new],
        [weight("constant", [[1, 2, 3, 4]]), weight("half", 0.5), weight("one", [1], np.int64)],
    )  # fmt: skip
    states = {f"{name}_out": name for name in names}
    frames = frames_of({"x": small}, 4)
    actual = mdlc.compile(network, "generic", state=states).build().run_many(frames)
    expected = passed_around(mdlc.compile(network, "generic").build(), frames, states)
    for step, wanted in zip(actual, expected, strict=True):
        assert step.keys() == wanted.keys()
        for name, array in wanted.items():
            np.testing.assert_array_equal(step[name], array, err_msg=name)


def test_what_lies_in_a_state_is_read_before_it_is_written() -> None:
    plan = mdlc.compile(sequence_model(), "generic", state=STATES).plan
    staged = [state.name for state in plan.states if state.staged is not None]
    assert staged == ["older", "left"]  # what they become is the memory of another state
    spans = [(plan.buffers[s.view.buffer].first, plan.buffers[s.view.buffer].last)
             for s in plan.states]  # fmt: skip
    assert set(spans) == {(-1, len(plan.steps))}  # no other tensor lies there, ever


def test_sanitized(tmp_path: Path) -> None:
    require("host")
    plan = mdlc.compile(sequence_model(), "host", state=STATES).plan
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", *WARNINGS)
    Executable(plan, flags=flags).run_many(frames_of({"x": [1, 3, 1, 8], "step": [1, 4]}, 3))


def test_reset(tmp_path: Path) -> None:
    compile_to(tmp_path, sequence_model(), "generic", name="Block", state=STATES)
    files = [*sources(tmp_path), DRIVERS / "reset.cpp"]
    flags = ("-O1", "-fsanitize=address,undefined", *WARNINGS)
    assert run(build(tmp_path, "g++", files, flags), tmp_path / "Block.weights") == ""
    header = (tmp_path / "Block.h").read_text()
    assert "int infer(Mat& x, Mat& step, Mat& y, Mat& z);" in header
    assert 'state      "cache": float 1x3x2x8, kept inside; zero after Init and Reset' in header


def test_text_and_layout() -> None:
    text = """
        %x: f32[1,3,4,4] = Input() "x"
        %s: f32[1,3,4,4] = Input() "s"
        %w: f32[3,3,3,3] = Random(1)
        %b: f32[3] = Full(0.0)
        %sum: f32[1,3,4,4] = Add()(%x, %s)
        %y: f32[1,3,4,4] = Conv2D(pads=(1, 1, 1, 1))(%sum, %w, %b)
        %t: f32[1,4,4,3] = Transpose(perm=(0, 2, 3, 1))(%y)
        state "next" -> "s"
        return t=%t, next=%y
    """
    graph = parse_graph(text)
    assert graph.states == (("next", "s"),)
    assert [node.name for node in graph.arguments] == ["x"]
    again = parse_graph(print_graph(graph), None) if "Data" not in print_graph(graph) else graph
    assert difference(graph, again) is None
    ((made, read),) = assign_layout(graph).state_pairs
    assert made.type.layout is read.type.layout


def test_verify_runs_a_sequence(tmp_path: Path) -> None:
    compiled = mdlc.compile(sequence_model(), "host", state=STATES)
    found = list(
        runs(compiled, frames_of({"x": [1, 3, 1, 8], "step": [1, 4]}, 4), compiled.build())
    )
    assert judge(compiled, found).ok
    np.testing.assert_array_equal(found[3].inputs["older"], found[2].inputs["sum"])
    # A state that is not what was left there is found, and so is one that does not begin as zero.
    cut = judge(compiled, [found[0], found[2]]).first_off
    assert cut is not None
    assert "is another" in cut.fault
    late = judge(compiled, [found[1]]).first_off
    assert late is not None
    assert "is another" in late.fault
    # So is one that the network did not compute.
    wrong = {**found[1].results, "sum_out": found[1].results["sum_out"] + 1}
    off = judge(compiled, [found[0], Run(found[1].inputs, found[1].traced, wrong)])
    assert "sum_out" in {layer.step for layer in off.outputs if not layer.ok}


def test_commands(tmp_path: Path) -> None:
    path = tmp_path / "sequence.onnx"
    onnx.save(sequence_model(), path)
    words = [word for pair in STATES.items() for word in ("--state", "=".join(pair))]
    frames = frames_of({"x": [1, 3, 1, 8], "step": [1, 4]}, 3)
    stacked: dict[str, Any] = {name: np.stack([f[name] for f in frames]) for name in frames[0]}
    np.savez(tmp_path / "frames.npz", **stacked)
    files = ["-i", str(tmp_path / "frames.npz"), "-o", str(tmp_path / "out.npz")]
    assert invoke(["run", str(path), "-t", "generic", *words, *files]) == 0
    expected = mdlc.compile(path, "generic", state=STATES).build().run_many(frames)
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_array_equal(out["y"], np.stack([step["y"] for step in expected]))
    for command in (["verify"], ["bench", "--repeats", "2"]):
        assert invoke([*command, str(path), "-t", "generic", *words]) == 0


def test_eight_bits(tmp_path: Path) -> None:
    """Calibration runs the frames as a sequence, so that states have the ranges that they get."""
    frames = frames_of({"x": [1, 3, 1, 8], "step": [1, 4]}, 8)
    stacked: dict[str, Any] = {name: np.stack([f[name] for f in frames]) for name in frames[0]}
    np.savez(tmp_path / "frames.npz", **stacked)
    compiled = mdlc.compile(
        sequence_model(), "generic", state=STATES,
        quantize=mdlc.Quantize(calibrate=tmp_path / "frames.npz", placement="everywhere"),
    )  # fmt: skip
    assert compiled.low_precision is not None
    whole = mdlc.compile(sequence_model(), "generic", state=STATES).build().run_many(frames)
    for actual, expected in zip(compiled.build().run_many(frames), whole, strict=True):
        apart = np.abs(actual["y"] - expected["y"]).max()
        assert apart <= 0.05 * np.abs(expected["y"]).max()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"none": "sum"}, "--state: the model has no output 'none'; its outputs are 'y', 'z'"),
        ({"sum_out": "none"}, "--state: the model has no input 'none'; its inputs are 'x'"),
        ({"y": "sum"}, "--state: output 'y' is f32[1,5,1,8], but input 'sum' is f32[1,4]; "),
        ({"sum_out": "sum", "older_out": "sum"}, "--state: names the input 'sum' twice; "),
        (["sum"], "--state: 'sum' is not a state; write --state OUTPUT=INPUT"),
        (["sum_out=sum", "sum_out=left"], "--state: names the output 'sum_out' twice; "),
        ({**STATES, "z": "step", "y": "x"}, "--state: output 'y' is"),
    ],
)
def test_refused(state: Any, message: str) -> None:
    with pytest.raises(MdlcError) as caught:
        mdlc.compile(sequence_model(), "generic", state=state)
    assert str(caught.value).startswith(message)


def test_refused_without_outputs_and_on_metal() -> None:
    lone = model([node("Relu", "x", "y")])
    with pytest.raises(MdlcError, match=r"--state: leaves no output; keep an output"):
        mdlc.compile(lone, "generic", state={"y": "x"})
    with pytest.raises(MdlcError, match=r"--state: target metal keeps nothing .* the state"):
        mdlc.compile(sequence_model(), "metal", state=STATES)
    whole = value("x", [1, 4], TensorProto.INT32)
    other = model([node("Cast", "x", "y", to=TensorProto.FLOAT), node("Neg", "x", "z")], [whole],
                  [value("y", [1, 4]), value("z", [1, 4], TensorProto.INT32)])  # fmt: skip
    with pytest.raises(MdlcError, match=r"output 'y' is f32\[1,4\], but input 'x' is i32\[1,4\]"):
        mdlc.compile(other, "generic", state={"y": "x"})


TRAINED: dict[str, dict[str, Any]] = {
    "silero_vad_16k": {"shapes": {"input": (1, 576)}, "fix": {"sr": 16000},
                       "state": {"stateN": "state"}},
    "silero_vad_ifless": {"shapes": {"input": (1, 576)}, "fix": {"sr": 16000},
                          "state": {"stateN": "state"}},
    "gtcrn_simple": {"state": {f"{name}_cache_out": f"{name}_cache"
                               for name in ("conv", "tra", "inter")}},
    "dtln_1": {"state": {"tf_op_layer_stack_2": "input_3"}},
    "dtln_2": {"state": {"tf_op_layer_stack_5": "input_5"}},
}  # fmt: skip


@needs_shared
@pytest.mark.parametrize(
    ("name", "target"), [*((name, "host") for name in TRAINED), ("silero_vad_16k", "arm-neon")]
)
def test_trained_networks_as_onnxruntime(name: str, target: str) -> None:
    """Eight steps, each program passing its own state to itself."""
    require(target)
    options = TRAINED[name]
    network = mdlc.compile(model_path(name), target, **options)
    shapes = {port.name: port.type.shape for port in network.plan.inputs}
    frames = frames_of(shapes, 8, seed=1)
    session = onnxruntime.InferenceSession(model_path(name), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    fixed = {name: np.array(value) for name, value in options.get("fix", {}).items()}
    kept = {
        node.name: np.zeros(node.shape, node.type.dtype.numpy)
        for _, node in network.imported.state_pairs
    }
    for frame, actual in zip(frames, network.build().run_many(frames), strict=True):
        expected = dict(zip(names, session.run(None, {**frame, **fixed, **kept}), strict=True))
        kept = {name: expected.pop(result) for result, name in options["state"].items()}
        for output, array in expected.items():
            apart = np.abs(actual[output] - array).max()
            assert apart <= 1e-4 * max(np.abs(array).max(), 1e-2), output
