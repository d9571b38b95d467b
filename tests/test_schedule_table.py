"""Tables of measured schedules: the file, the keys, and what a table changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mdlc
from mdlc.cli import invoke
from mdlc.codegen.isa.registry import find_isa, isas
from mdlc.codegen.kernel import Candidate, Schedule, candidates
from mdlc.codegen.plan import schedule_table
from mdlc.codegen.plan.schedule_table import (
    ScheduleTable,
    Tuned,
    layer_key,
    parse_table,
    shipped_tables,
)
from mdlc.codegen.plan.views import is_alias
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Node
from mdlc.passes.canonicalise import lower_batch_norm
from mdlc.passes.layout import assign_layout
from tests.emitted_code import block_model, image
from tests.op_samples import sampled_ops
from tests.targets import require
from tests.test_cli import failed, succeeded
from tests.test_kernels import network_of

Captured = pytest.CaptureFixture[str]
TARGET = "x86-avx2"


def choices() -> list[tuple[Node, list[Candidate]]]:
    """The layers of block_model with their candidates, as far as there are several."""
    compiled = mdlc.compile(block_model(), TARGET, tuned=())
    found = [(step.node, candidates(step.node, compiled.plan.isa)) for step in compiled.plan.steps]
    return [(node, ways) for node, ways in found if len(ways) > 1]


def table_that_prefers(rank: int) -> ScheduleTable:
    """A table by which the candidate of that rank in the cost model's order is the cheapest."""
    layers = {}
    for node, ways in choices():
        best = min(rank, len(ways) - 1)
        costs = {str(way.schedule): 100 + i for i, way in enumerate(ways)}
        layers[layer_key(node)] = {**costs, str(ways[best].schedule): 7}
    return ScheduleTable(TARGET, "nanoseconds", "Abacus 1", "g++", layers)


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "block.onnx"
    onnx.save(block_model(), path)
    return str(path)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "block.tuned.json"
    path.write_bytes(table_that_prefers(1).to_json())
    return path


# --- keys and schedules as text


def test_keys_are_readable() -> None:
    keys = [layer_key(node) for node, _ in choices()]
    six = "activation=Clip(low=0.0, high=6.0)"
    assert keys[0] == (
        f"Conv2D(stride=(2, 2), pads=(1, 1, 1, 1), {six})"
        "(f32[1,3,16,16]@nhwc, const f32[16,3,3,3], const f32[16]) -> f32[1,16,8,8]@nhwc"
    )
    assert keys[2] == (
        "Conv2D(residual=True)(f32[1,16,8,8]@nhwc, const f32[16,16,1,1], const f32[16], "
        "f32[1,16,8,8]@nhwc) -> f32[1,16,8,8]@nhwc"
    )


def test_keys_depend_on_neither_weights_nor_names() -> None:
    renamed = onnx.load_from_string(block_model(seed=1).SerializeToString())
    for node in renamed.graph.node:
        node.name = f"other_{node.name}"
    compiled = mdlc.compile(renamed, TARGET, tuned=())
    keys = {layer_key(step.node) for step in compiled.plan.steps}
    assert {layer_key(node) for node, _ in choices()} <= keys


@pytest.mark.parametrize("target", list(isas()))
def test_the_text_of_a_schedule_names_one_candidate(target: str) -> None:
    isa = find_isa(target)
    for cls in sampled_ops():
        for node in assign_layout(lower_batch_norm(network_of(cls)[0])).order():
            if not node.inputs or node.constant is not None or is_alias(node):
                continue
            found = candidates(node, isa)
            assert len({str(c.schedule) for c in found}) == len(found), layer_key(node)


def test_fields_added_to_schedules_leave_older_texts_alone() -> None:
    @dataclass(frozen=True)
    class Later(Schedule):
        unroll: int = 1
        streamed: bool = False

    for schedule in (
        Schedule("direct"),
        Schedule("direct", (6, 32), (128,)),
        Schedule("winograd", (8, 12), (4, 2), True),
    ):
        later = Later(schedule.algorithm, schedule.tile, schedule.block, schedule.panels)
        assert str(later) == str(schedule)
    assert str(Schedule("winograd", (8, 12), (4, 2), True)) == "winograd 8x12 block 4x2 panels"
    assert str(Later("direct", (6, 32), unroll=2, streamed=True)) == "direct 6x32 unroll 2 streamed"


# --- the file

_texts = st.text(min_size=1, max_size=20)
_costs = st.dictionaries(_texts, st.integers(0, 10**12) | st.floats(0, 1e12), min_size=1)


@given(st.dictionaries(_texts, _costs), _texts, _texts, _texts)
def test_a_file_is_read_as_it_was_written(
    layers: dict[str, dict[str, float]], metric: str, processor: str, compiler: str
) -> None:
    written = ScheduleTable(TARGET, metric, processor, compiler, layers)
    data = written.to_json()
    read = parse_table(data, TARGET, "t.json")
    assert read == written
    assert read.to_json() == data
    backwards = {key: dict(reversed(costs.items())) for key, costs in reversed(layers.items())}
    assert ScheduleTable(TARGET, metric, processor, compiler, backwards).to_json() == data


def test_the_file_is_sorted_and_a_measurement_changes_its_own_lines() -> None:
    whole = table_that_prefers(1)
    lines = whole.to_json().decode().splitlines()
    keys = [line for line in lines if line.startswith("  ") and " -> " in line]
    assert keys == sorted(keys)
    assert len(keys) == len(whole.layers)
    first = sorted(whole.layers)[0]
    changed = whole.with_layer(first, {**whole.layers[first], "direct": 12345.5})
    added = set(changed.to_json().decode().splitlines()) - set(lines)
    assert added <= {'   "direct": 12345.5', '   "direct": 12345.5,'} | {
        line + "," for line in lines
    }
    # The head says nothing of where and when; what is cheapest stands first.
    head = json.loads(whole.to_json())
    assert list(head) == ["format", "target", "metric", "processor", "compiler", "core", "layers"]
    for costs in head["layers"].values():
        assert list(costs.values()) == sorted(costs.values())


def _content() -> dict[str, object]:
    found: dict[str, object] = json.loads(table_that_prefers(1).to_json())
    return found


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": 2}, "has format 2, not 1"),
        ({"format": None}, "has format None, not 1"),
        ({"target": "arm-neon"}, f"is a table for arm-neon, not for {TARGET}"),
        ({"target": 3}, "is damaged: target, metric, processor or compiler is missing"),
        ({"layers": []}, "is damaged: its layers are not a JSON object"),
        ({"layers": {"k": {}}}, "is damaged: no schedules for k"),
        ({"layers": {"k": 3}}, "is damaged: no schedules for k"),
        ({"layers": {"k": {"direct": "1"}}}, "is damaged: '1' is not a cost (of 'direct' for k)"),
        ({"layers": {"k": {"direct": -1}}}, "is damaged: -1 is not a cost"),
        ({"layers": {"k": {"direct": True}}}, "is damaged: True is not a cost"),
        ({"layers": {"k": {"direct": float("nan")}}}, "is damaged: nan is not a cost"),
    ],
)
def test_damaged_tables(
    change: dict[str, object], told: str, model: str, table: Path, tmp_path: Path, capsys: Captured
) -> None:
    table.write_text(json.dumps({**_content(), **change}))
    out = tmp_path / "out"
    shown = failed(capsys, model, "-t", TARGET, "--tuned", str(table), "-o", str(out))
    assert shown.startswith(f"mdlc: {table}: ")
    assert told in shown
    assert not out.exists()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "is not a table of schedules: it is not JSON"),
        (b"\xff\xfe", "is not a table of schedules: it is not JSON"),
        (b"[" * 100_000, "is not a table of schedules: it is not JSON"),
        (b"[1, 2]", "is not a table of schedules; make it anew"),
        (b"{}", "is not a table of schedules; make it anew"),
        (None, "there is no such file"),
    ],
)
def test_files_that_are_no_tables(
    data: bytes | None, told: str, model: str, table: Path, capsys: Captured
) -> None:
    table.unlink()
    if data is not None:
        table.write_bytes(data)
    assert told in failed(capsys, "explain", model, "-t", TARGET, "--tuned", str(table))


def test_a_folder_is_no_table(model: str, tmp_path: Path, capsys: Captured) -> None:
    assert "--tuned" in failed(capsys, model, "-t", TARGET, "--tuned", str(tmp_path))


def test_half_a_file_is_refused_wherever_it_is_cut(table: Path) -> None:
    data = table.read_bytes()
    for length in range(0, len(data) - 2, 97):
        with pytest.raises(MdlcError, match="is not a table of schedules"):
            parse_table(data[:length], TARGET, "t.json")


def test_schedules_that_are_no_more(model: str, table: Path, capsys: Captured) -> None:
    content = table_that_prefers(1)
    key = sorted(content.layers)[0]
    old = content.with_layer(key, {**content.layers[key], "direct 99x99": 1})
    table.write_bytes(old.to_json())
    shown = failed(capsys, model, "-t", TARGET, "--tuned", str(table))
    assert f"{table}: no kernel has the schedule 'direct 99x99' for {key} any more" in shown
    assert "mdlc tune" in shown


def test_tuned_and_no_tuned_contradict(model: str, table: Path, capsys: Captured) -> None:
    shown = failed(capsys, model, "--tuned", str(table), "--no-tuned")
    assert "--no-tuned: contradicts --tuned" in shown


# --- what a table changes


def test_a_table_changes_the_choice(table: Path) -> None:
    plain = mdlc.compile(block_model(), TARGET, tuned=())
    tuned = mdlc.compile(block_model(), TARGET, tuned=table)
    for one, other in zip(plain.plan.steps, tuned.plan.steps, strict=True):
        found = candidates(one.node, plain.plan.isa)
        assert one.schedule == found[0].schedule
        assert other.schedule == found[min(1, len(found) - 1)].schedule
    assert plain.plan.digest() != tuned.plan.digest()
    assert plain.files() != tuned.files()


def test_a_layer_that_no_table_knows_is_the_cost_models(table: Path) -> None:
    content = table_that_prefers(1)
    lost = layer_key(choices()[0][0])
    layers = {key: costs for key, costs in content.layers.items() if key != lost}
    head = (content.target, content.metric, content.processor, content.compiler)
    table.write_bytes(ScheduleTable(*head, layers).to_json())
    for step in mdlc.compile(block_model(), TARGET, tuned=table).plan.steps:
        found = candidates(step.node, find_isa(TARGET))
        rank = 0 if layer_key(step.node) == lost else min(1, len(found) - 1)
        assert step.schedule == found[rank].schedule


def test_a_table_may_force_a_single_schedule(table: Path) -> None:
    node, ways = choices()[0]
    content = ScheduleTable(
        TARGET, "taste", "mine", "none", {layer_key(node): {str(ways[-1].schedule): 0}}
    )
    table.write_bytes(content.to_json())
    assert mdlc.compile(block_model(), TARGET, tuned=table).plan.steps[0].schedule == (
        ways[-1].schedule
    )


def test_later_tables_override(tmp_path: Path) -> None:
    first, second = tmp_path / "1.json", tmp_path / "2.json"
    first.write_bytes(table_that_prefers(1).to_json())
    content = table_that_prefers(2)
    key, costs = next(iter(content.layers.items()))
    head = (content.target, content.metric, content.processor, content.compiler)
    second.write_bytes(ScheduleTable(*head, {key: costs}).to_json())
    for step in mdlc.compile(block_model(), TARGET, tuned=[first, second]).plan.steps:
        found = candidates(step.node, find_isa(TARGET))
        rank = min(2 if layer_key(step.node) == key else 1, len(found) - 1)
        assert step.schedule == found[rank].schedule


def test_tuned_classes_compute_the_same() -> None:
    require(TARGET)
    expected = mdlc.compile(block_model(), TARGET, tuned=()).build()(image=image())["logits"]
    for rank in (1, 5):
        compiled = mdlc.compile(block_model(), TARGET, tuned=())
        plan = mdlc.codegen.plan.lowering.lower(
            compiled.graph,
            compiled.plan.isa,
            "Tuned",
            tuned=Tuned((("t", table_that_prefers(rank)),)),
        )
        actual = mdlc.codegen.run.executable.Executable(plan)(image=image())["logits"]
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_the_same_table_gives_the_same_bytes_everywhere(
    model: str, table: Path, tmp_path: Path
) -> None:
    written = mdlc.compile(model, TARGET, tuned=table).files()
    moved = tmp_path / "elsewhere" / table.name
    moved.parent.mkdir()
    moved.write_bytes(table.read_bytes())
    for seed in ("1", "2"):
        out = tmp_path / seed
        subprocess.run(
            [sys.executable, "-m", "mdlc", model, "-t", TARGET, "--tuned", moved, "-o", out],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        )
        assert {path.name: path.read_bytes() for path in out.iterdir()} == written
    header = written["Block.h"].decode()
    assert f"--tuned {table.name}" in " ".join(header.split())
    assert str(tmp_path) not in header
    alone = mdlc.compile(model, TARGET, tuned=()).files()["Block.h"].decode()
    assert "--no-tuned" in alone


def test_tables_are_dependencies(model: str, table: Path, tmp_path: Path) -> None:
    dependencies = tmp_path / "block.d"
    options = ("--tuned", str(table), "-o", str(tmp_path / "out"), "--depfile", str(dependencies))
    assert invoke([model, "-t", TARGET, *options]) == 0
    sources = dependencies.read_text().strip().partition(": ")[2]
    assert sources.split() == [model, str(table)]


def test_explain_says_who_chose(model: str, table: Path, capsys: Captured) -> None:
    shown = succeeded(capsys, "explain", model, "-t", TARGET, "--tuned", str(table))
    _, ways = choices()[0]
    head = next(line for line in shown.splitlines() if line.startswith("stem_c: "))
    assert head.endswith(f"chosen by {table} (Abacus 1)")
    rows = shown[shown.index(head) :].splitlines()[1:]
    assert rows[0].split()[-1] == "nanoseconds"
    assert rows[1].split()[-1] == "100"
    winner = next(row for row in rows if row.lstrip().startswith("->"))
    assert str(ways[1].schedule) in winner
    assert winner.split()[-1] == "7"
    assert rows.index(winner) == 2
    pool = next(line for line in shown.splitlines() if line.startswith("pool: "))
    assert pool.endswith("chosen by the cost model")
    alone = succeeded(capsys, "explain", model, "-t", TARGET, "--no-tuned")
    assert "nanoseconds" not in alone
    assert alone.count("chosen by the cost model") == alone.count("chosen by")


def test_other_commands_take_tables(table: Path, model: str, capsys: Captured) -> None:
    require(TARGET)
    options = ("-t", TARGET, "--tuned", str(table))
    shown = succeeded(capsys, "bench", model, *options, "--repeats", "1", "--json")
    first = json.loads(shown)["layers"][0]["schedule"]
    assert first == str(choices()[0][1][1].schedule)
    assert "within its bound" in succeeded(capsys, "verify", model, *options)


# --- tables that come with mdlc


@pytest.mark.parametrize("target", list(isas()))
def test_shipped_tables_can_be_read(target: str) -> None:
    isa = find_isa(target)
    tables = shipped_tables(isa).tables
    folder = Path(schedule_table.__file__).parent / "tuned"
    tuned = isa.tuned_as or target
    assert len(tables) == (folder / f"{tuned}.json").exists()
    for _, table in tables:
        assert table.target == tuned
        assert table.layers


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a table for TARGET ships, for the test."""

    class Resources:
        @staticmethod
        def files(package: str) -> Path:
            assert package == "mdlc.codegen.plan"
            return tmp_path

    monkeypatch.setattr(schedule_table, "resources", Resources)
    (tmp_path / "tuned").mkdir()
    return tmp_path / "tuned" / f"{TARGET}.json"


def test_the_shipped_table_is_the_default(shipped: Path, model: str, capsys: Captured) -> None:
    _, ways = choices()[0]
    assert mdlc.compile(model, TARGET).plan.steps[0].schedule == ways[0].schedule
    shipped.write_bytes(table_that_prefers(1).to_json())
    assert mdlc.compile(model, TARGET).plan.steps[0].schedule == ways[1].schedule
    assert mdlc.compile(model, TARGET, tuned=()).plan.steps[0].schedule == ways[0].schedule
    shown = succeeded(capsys, "explain", model, "-t", TARGET)
    assert f"chosen by mdlc's {TARGET}.json (Abacus 1)" in shown
    header = mdlc.compile(model, TARGET).files()["Block.h"].decode()
    assert "tuned" not in header


@pytest.mark.parametrize("lost", ["a schedule that is no more", "the favourite"])
def test_shipped_entries_that_kernels_outgrew_are_passed_over(
    lost: str, shipped: Path, model: str, capsys: Captured
) -> None:
    node, ways = choices()[0]
    content = table_that_prefers(1)
    costs = dict(content.layers[layer_key(node)])
    if lost == "the favourite":
        del costs[str(ways[0].schedule)]
    else:
        costs["direct 99x99"] = 5000
    shipped.write_bytes(content.with_layer(layer_key(node), costs).to_json())
    steps = mdlc.compile(model, TARGET).plan.steps
    assert steps[0].schedule == ways[0].schedule
    assert steps[1].schedule == choices()[1][1][1].schedule
    assert invoke(["explain", model, "-t", TARGET, "--layer", "stem"]) == 0
    assert "chosen by the cost model" in capsys.readouterr().out
