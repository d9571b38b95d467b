"""mdlc tune: measuring candidates, the table's file, and going on after an interruption."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import mdlc
from mdlc import tuning
from mdlc.cli import invoke
from mdlc.codegen.isa.registry import find_isa
from mdlc.codegen.kernel import Schedule, Step, candidates
from mdlc.codegen.plan.lowering import lower
from mdlc.codegen.plan.schedule_table import layer_key
from mdlc.codegen.plan.views import is_alias
from mdlc.codegen.run import measure
from mdlc.codegen.run.executable import Executable
from mdlc.codegen.run.instruction_counts import CLASSES, count
from mdlc.codegen.run.measure import Measurement, Program, copies, find_machine
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.op import Op
from mdlc.passes.canonicalise import lower_batch_norm
from mdlc.passes.layout import assign_layout
from mdlc.tuning import layers_of, tune
from tests.emitted_code import block_model
from tests.op_samples import sampled_ops
from tests.targets import require
from tests.test_cli import failed, succeeded
from tests.test_kernels import network_of

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def block(tmp_path: Path) -> str:
    path = tmp_path / "block.onnx"
    onnx.save(block_model(), path)
    return str(path)


@pytest.fixture
def small(tmp_path: Path) -> str:
    """One distinct layer."""
    path = tmp_path / "small.onnx"
    onnx.save(pointwise(8), path)
    return str(path)


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Replaces programs by figures that need no compiler; lists what was measured, how often.

    The dearest by the cost model is the cheapest by these figures.
    """
    measured: list[tuple[str, int]] = []

    class Figures:
        def __init__(
            self, step: Step, isa: object, schedules: Sequence[Schedule], *_: object
        ) -> None:
            self.key, self.count = layer_key(step.node), len(schedules)

        def run(self, rounds: int) -> Measurement:
            measured.append((self.key, rounds))
            return Measurement(tuple(range(self.count, 0, -1)), "made up")

    monkeypatch.setattr(tuning, "Program", Figures)
    return measured


# --- candidates in one program


@pytest.mark.parametrize("target", ["arm-neon", "x86-avx512"])
@pytest.mark.parametrize("cls", sampled_ops(), ids=lambda cls: cls.__name__)
def test_copies_of_a_layer_share_inputs_and_nothing_else(cls: type[Op], target: str) -> None:
    isa = find_isa(target)
    for node in assign_layout(lower_batch_norm(network_of(cls)[0])).order():
        if not node.inputs or node.constant is not None or is_alias(node):
            continue
        found = candidates(node, isa)
        if len(found) == 1:
            continue
        graph, values = copies(node, 3)
        sources = dict.fromkeys(source for source in node.inputs if source.constant is None)
        assert [made.type for made in graph.inputs[:-1]] == [source.type for source in sources]
        assert len(values) == len(graph.inputs)
        names = [f"c{i}" for i in range(3)]
        chosen = dict(zip(names, [found[i % len(found)].schedule for i in range(3)], strict=True))
        plan = lower(graph, isa, "Copies", schedules=chosen)
        layers = plan.steps[1:]
        assert [step.schedule for step in layers] == list(chosen.values())
        assert {layer_key(step.node) for step in layers} == {layer_key(node)}
        outputs = [step.output.buffer for step in layers]
        assert len({*outputs, *(port.view.buffer for port in plan.inputs)}) == 3 + len(values)


def test_times_are_those_of_the_layer(tmp_path: Path) -> None:
    """A layer of a hundred times the work takes longer, by whatever schedule."""
    require("host")
    isa = find_isa("host")
    machine = find_machine(isa)
    medians = []
    for size in (8, 80):
        step = mdlc.compile(pointwise(size), "host", tuned=()).plan.steps[0]
        found = [candidate.schedule for candidate in candidates(step.node, isa)[:3]]
        folder = tmp_path / str(size)
        folder.mkdir()
        result = Program(step, isa, found, machine, folder).run(9)
        assert len(result.costs) == len(found)
        assert result.processor
        medians.append(result.costs)
    assert max(medians[0]) < min(medians[1])


def pointwise(size: int, kernel: int = 1, channels: int = 32) -> onnx.ModelProto:
    """Two convolutions, 1x1 unless another kernel is given, on size x size pixels."""
    shape = (1, channels, size, size)
    infos = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in "xy"
    ]
    values = np.full((channels, channels, kernel, kernel), 0.5, np.float32)
    weight = onnx.numpy_helper.from_array(values, "w")
    pads = [kernel // 2] * 4
    nodes = [
        onnx.helper.make_node("Conv", [source, "w"], [target], pads=pads)
        for source, target in ("xm", "my")
    ]
    graph = onnx.helper.make_graph(nodes, "pointwise", infos[:1], infos[1:], [weight])
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )


def test_counts_are_those_of_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A candidate costs the instructions that the layer executes in a network of its own.

    Nearly: what a compiler spills depends on what else stands in the function that it inlines a
    layer into, by a per cent with clang and by eight with gcc 12.
    """
    require("arm-neon")
    clang = shutil.which("clang++") is not None and Path("/usr/aarch64-linux-gnu").exists()
    if clang:
        monkeypatch.setenv("MDLC_CXX_ARM_NEON", "clang++ --target=aarch64-linux-gnu")
    isa = find_isa("arm-neon")
    plan = mdlc.compile(pointwise(20), "arm-neon", tuned=()).plan
    convolution = plan.steps[1]
    found = [candidate.schedule for candidate in candidates(convolution.node, isa)[:3]]
    machine = find_machine(isa)
    assert machine.metric.startswith("instructions")
    program = Program(convolution, isa, found, machine, tmp_path)
    costs = program.run(1).costs
    monkeypatch.setattr(measure, "_L1_MISS", 0)
    monkeypatch.setattr(measure, "_L2_MISS", 0)
    result = program.run(1)
    assert result.processor == f"{isa.toolchain.qemu_cpu} in qemu"
    assert "L1 misses" in machine.metric
    # Each of the 50 KB read and written at least misses once.
    lines = 2 * 20 * 20 * 32 * 4 // 64
    for counted, cost in zip(result.costs, costs, strict=True):
        assert cost - counted > 2 * lines
    for schedule, cost in zip(found, result.costs, strict=True):
        node = convolution.node
        whole = lower(plan.graph, isa, "One", schedules={node.name: schedule}, row_groups=())
        layers = count(Executable(whole)).layers
        exact = layers[next(step.name for step in whole.steps if step.node is node)]
        assert cost == pytest.approx(exact[CLASSES.index("all")], rel=0.02 if clang else 0.15)


def test_tensors_lie_as_in_the_network(tmp_path: Path) -> None:
    """Pixels of 512 channels are spread in a network, and are in the program that measures."""
    require("host")
    isa = find_isa("host")
    steps = mdlc.compile(pointwise(6, channels=512), "host", tuned=()).plan.steps
    assert steps[0].output.pitch == steps[1].inputs[0].pitch > 512
    machine = find_machine(isa)
    for number, step in enumerate(steps):
        found = [candidate.schedule for candidate in candidates(step.node, isa)[:3]]
        folder = tmp_path / str(number)
        folder.mkdir()
        program = Program(step, isa, found, machine, folder)
        for copy in program.plan.steps[1:]:
            assert copy.inputs[0].pitch == step.inputs[0].pitch
            assert copy.output.pitch == step.output.pitch
        assert len(program.run(2).costs) == 3
        ends = sorted((b.offset, b.offset + b.nbytes) for b in program.plan.buffers)
        assert all(end <= start for (_, end), (start, _) in pairwise(ends))
        assert ends[-1][1] <= program.plan.arena_bytes


# --- the command


def test_measures_every_layer_with_a_choice_once(
    block: str, tmp_path: Path, capsys: Captured, programs: list[tuple[str, int]]
) -> None:
    table = tmp_path / "t.json"
    shown = succeeded(
        capsys, "tune", block, "-t", "generic", "--table", str(table), "--repeats", "3"
    )
    layers = layers_of([mdlc.compile(block, "generic").plan])
    assert len(layers) >= 3
    assert [key for key, _ in programs] == [layer.key for layer in layers]
    assert {rounds for _, rounds in programs} == {3}
    assert f"{len(layers)} layers measured, 0 known before" in shown
    first = table.read_bytes()
    assert json.loads(first)["processor"] == "made up"
    programs.clear()
    shown = succeeded(capsys, "tune", block, "-t", "generic", "--table", str(table))
    assert programs == []
    assert f"0 layers measured, {len(layers)} known before" in shown
    assert table.read_bytes() == first


def test_the_default_table_is_named_by_the_target(
    block: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
    programs: list[tuple[str, int]],
) -> None:
    monkeypatch.chdir(tmp_path)
    succeeded(capsys, "tune", block, "--target", "generic")
    assert programs
    assert (tmp_path / "generic.tuned.json").exists()


def test_only_what_is_missing_is_measured(
    block: str, tmp_path: Path, programs: list[tuple[str, int]]
) -> None:
    table = tmp_path / "t.json"
    isa = find_isa("generic")
    layers = layers_of([mdlc.compile(block, "generic").plan])
    machine = find_machine(isa)
    tune(layers, isa, table, machine, top=2)
    content = json.loads(table.read_text())
    lost = layers[1].key
    del content["layers"][lost]
    content["layers"]["of another network"] = {"direct": 1}
    table.write_text(json.dumps(content))
    programs.clear()
    found = tune(layers, isa, table, machine, top=2)
    assert [key for key, _ in programs] == [lost]
    assert (found.measured, found.kept, found.left) == (1, len(layers) - 1, 0)
    assert "of another network" in json.loads(table.read_text())["layers"]
    programs.clear()
    # More candidates: those layers anew, as figures of different runs cannot be compared.
    tune(layers, isa, table, machine, top=0)
    more = [layer.key for layer in layers if len(layer.found) > len(layer.worth_measuring(2))]
    assert [key for key, _ in programs] == more
    content = json.loads(table.read_text())
    for layer in layers:
        if layer.key in more:
            assert set(content["layers"][layer.key]) == {str(c.schedule) for c in layer.found}
    # Schedules that are no more go.
    content["layers"][lost]["direct 99x99"] = 1
    table.write_text(json.dumps(content))
    programs.clear()
    tune(layers, isa, table, machine, top=0)
    assert [key for key, _ in programs] == [lost]
    assert "direct 99x99" not in table.read_text()


def test_no_layer_is_begun_after_the_time(
    block: str, tmp_path: Path, capsys: Captured, programs: list[tuple[str, int]]
) -> None:
    table = tmp_path / "t.json"
    arguments = ("tune", block, "-t", "generic", "--table", str(table))
    shown = succeeded(capsys, *arguments, "--minutes", "1e-9")
    assert programs == []
    assert "left for another run" in shown
    assert not table.exists()
    succeeded(capsys, *arguments)
    assert programs


def test_candidates_are_the_cheapest_and_the_best_of_each_algorithm() -> None:
    isa = find_isa("x86-avx2")
    step = next(
        step
        for step in mdlc.compile(pointwise(12, 3), "x86-avx2", tuned=()).plan.steps
        if {c.schedule.algorithm for c in candidates(step.node, isa)} >= {"direct", "winograd"}
    )
    found = tuple(candidates(step.node, isa))
    one = tuning.Layer("k", step, found, 1)
    assert one.worth_measuring(0) == list(found)
    few = one.worth_measuring(2)
    assert few[:2] == list(found[:2])
    near = [c for c in found if c.cycles <= 2 * found[0].cycles]
    assert {c.schedule.algorithm for c in few} == {c.schedule.algorithm for c in near}
    assert set(map(id, few)) <= set(map(id, near))


def test_failures_keep_what_was_measured(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: list[tuple[str, int]]
) -> None:
    figures: Any = tuning.Program
    original: Callable[[Any, int], Measurement] = figures.run

    def run(self: Any, rounds: int) -> Measurement:
        if len(programs) == 2:
            raise MdlcError("the phone is gone")
        return original(self, rounds)

    monkeypatch.setattr(figures, "run", run)
    isa = find_isa("generic")
    layers = layers_of([mdlc.compile(block, "generic").plan])
    table = tmp_path / "t.json"
    with pytest.raises(MdlcError, match="the phone is gone"):
        tune(layers, isa, table, find_machine(isa))
    assert len(json.loads(table.read_text())["layers"]) == 2


def test_killed_in_the_middle_the_next_run_measures_the_rest(block: str, tmp_path: Path) -> None:
    require("host")
    table = tmp_path / "t.json"
    command = [sys.executable, "-m", "mdlc", "tune", block, "-t", "generic", "--table", str(table)]
    command += ["--top", "2", "--repeats", "3"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    deadline = time.monotonic() + 120
    while not table.exists():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    before = json.loads(table.read_text())  # whole, whenever it was read
    layers = layers_of([mdlc.compile(block, "generic").plan])
    known = len(before["layers"])
    assert 1 <= known < len(layers)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert f"{len(layers) - known} layers measured, {known} known before" in done.stdout
    after = json.loads(table.read_text())
    assert set(after["layers"]) == {layer.key for layer in layers}
    for key, costs in before["layers"].items():
        assert after["layers"][key] == costs
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".t.json")]


def test_what_was_measured_otherwise_is_not_continued(
    block: str, tmp_path: Path, capsys: Captured, programs: list[tuple[str, int]]
) -> None:
    table = tmp_path / "t.json"
    arguments = ("tune", block, "-t", "generic", "--table", str(table))
    succeeded(capsys, *arguments, "--top", "2")
    content = json.loads(table.read_text())
    for name, other in (("metric", "instructions"), ("compiler", "cc"), ("processor", "Z80")):
        changed = json.dumps({**content, name: other})
        table.write_text(changed)
        told = failed(capsys, *arguments, "--top", "0")
        assert f"was measured with the {name} {other!r}" in told
        assert "name another --table" in told
        assert table.read_text() == changed
    table.write_text("{")
    assert "remove it, or name another --table" in failed(capsys, *arguments)
    assert table.read_text() == "{"
    assert invoke(["tune", block, "-t", "x86-avx2", "--table", str(table)]) == 2


# --- other machines


def test_runner_in_an_emulator(small: str, tmp_path: Path, capsys: Captured) -> None:
    require("arm-neon")
    if shutil.which("qemu-aarch64") is None:
        pytest.skip("needs qemu-aarch64")
    tables = []
    for name in ("a", "b"):
        path = tmp_path / name
        arguments = ("--table", str(path), "--top", "2", "--runner", "qemu-aarch64 -cpu cortex-a53")
        succeeded(capsys, "tune", small, "-t", "arm-neon", *arguments)
        tables.append(json.loads(path.read_text()))
    assert tables[0]["processor"] == "cortex-a53 in qemu"
    assert tables[0]["metric"].startswith("instructions")
    for costs, again in zip(*(table["layers"].values() for table in tables), strict=True):
        assert costs.keys() == again.keys()
        # Instructions are exact; a line of the stack may be missed once more.
        assert costs == pytest.approx(again, rel=1e-3)


def test_files_are_pushed_to_where_the_runner_starts(
    small: str, tmp_path: Path, capsys: Captured
) -> None:
    """A folder stands for the phone."""
    require("host")
    phone = tmp_path / "phone"
    phone.mkdir()
    table = tmp_path / "t.json"
    arguments = ("--table", str(table), "--top", "2", "--repeats", "2")
    remote = ("--runner", f"env -C {phone}", "--push", f"cp {{}} {phone}")
    succeeded(capsys, "tune", small, "-t", "generic", *arguments, *remote)
    assert {path.name for path in phone.iterdir()} == {"tuner", "tuner.weights", "tuner.input"}
    content = json.loads(table.read_text())
    assert content["metric"] == "nanoseconds"
    assert content["layers"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--push", "scp {} phone:"), "--push: only works with --runner"),
        (("--runner", "ssh phone", "--push", "scp phone:"), "has no {} where the file's name goes"),
        (("--runner", "'"), '--runner: "\'" is not a command'),
        (("--runner", ""), "--runner: the command is empty"),
        (("--runner", "ssh box qemu-aarch64"), "instructions can only be counted in a qemu"),
        (("--runner", "qemu-x86_64", "--push", "cp {} ."), "begin with qemu, and leave out --push"),
        (("--top", "-1"), "--top"),
        (("--repeats", "0"), "--repeats"),
        (("--minutes", "0"), "--minutes"),
        (
            ("--runner", "no-such-command-anywhere"),
            "there is no program 'no-such-command-anywhere'",
        ),
        (("--runner", "false"), "false: failed: exit code 1"),
        (("--runner", "qemu-none-such"), "there is no program 'qemu-none-such'"),
        (("--runner", "echo"), "echo: the measuring program printed something other than figures"),
    ],
)
def test_bad_options(
    arguments: tuple[str, ...], told: str, small: str, tmp_path: Path, capsys: Captured
) -> None:
    require("host")
    table = tmp_path / "t.json"
    shown = failed(
        capsys, "tune", small, "-t", "generic", "--top", "1", "--table", str(table), *arguments
    )
    assert told in shown
    assert not table.exists()
