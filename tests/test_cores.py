"""Cores: entries that the cost model counts with, and what --core changes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import mdlc
from mdlc.codegen.isa.cores import CORES
from mdlc.codegen.isa.registry import cores_of, find_isa, isas
from mdlc.codegen.plan.schedule_table import ScheduleTable, shipped_tables
from mdlc.codegen.target import find_target
from mdlc.compiler.errors import MdlcError
from tests.emitted_code import block_model
from tests.shared_data import model_inputs, model_path, needs_shared, onnxruntime_outputs
from tests.targets import require

NETWORK = "ultraface_rfb320"  # 63 layers


def test_every_core_has_a_name_a_source_and_an_instruction_set() -> None:
    assert len({core.name for core in CORES}) == len(CORES)
    for core in CORES:
        assert core.source
        assert not core.general
        assert core.l1_bytes < core.l2_bytes
        assert 0 < core.fma_per_cycle <= core.issue_width
        assert 0 < core.loads_per_cycle <= core.issue_width
        wanted = [
            isa for isa in isas().values() if isa.toolchain.triple and core.name in cores_of(isa)
        ]
        assert wanted, core.name


@pytest.mark.parametrize("target", list(isas()))
def test_a_target_is_for_a_core_in_general(target: str) -> None:
    isa = find_isa(target)
    assert isa.core.general
    assert next(iter(cores_of(isa))) == isa.core.name


def test_long_vectors_take_several_turns() -> None:
    isa = find_target("x86-avx512").with_core("zen4").backend.of(())
    assert isa.fma_per_cycle == isa.loads_per_cycle == 1.0  # 512 bits on pipes of 256
    assert find_target("x86-avx2").with_core("zen4").backend.of(()).fma_per_cycle == 2.0
    assert find_target("x86-avx512").with_core("zen5").backend.of(()).fma_per_cycle == 2.0


@needs_shared
@pytest.mark.parametrize("core", ["cortex-a55", "cortex-a76"])
def test_outputs_on_a_core(core: str) -> None:
    require("arm-neon")
    (inputs,) = model_inputs(NETWORK)
    compiled = mdlc.compile(model_path(NETWORK), "arm-neon", core=core)
    assert f"--core {core}" in compiled.info.command
    actual = compiled.build()(inputs)
    for output, expected in onnxruntime_outputs(NETWORK, inputs).items():
        assert np.abs(actual[output] - expected).max() <= 1e-4 * np.abs(expected).max()


@needs_shared
def test_cores_choose_other_schedules() -> None:
    plans = [
        mdlc.compile(model_path(NETWORK), "arm-neon", core=core).plan
        for core in ("cortex-a55", "cortex-a76")
    ]
    little, big = (
        {step.node.name: (str(step.schedule), step.cycles(plan.isa)) for step in plan.steps}
        for plan in plans
    )
    other = [name for name in little if little[name][0] != big[name][0]]
    assert len(other) > len(little) // 10
    # The little core starts half as many multiply-adds, and a quarter of the loads.
    ratio = sum(cost for _, cost in little.values()) / sum(cost for _, cost in big.values())
    assert 1.5 < ratio < 4


@needs_shared
def test_without_a_core_nothing_changes() -> None:
    plain = mdlc.compile(model_path(NETWORK), "arm-neon").plan
    named = mdlc.compile(model_path(NETWORK), "arm-neon", core="aarch64").plan
    assert [s.schedule for s in plain.steps] == [s.schedule for s in named.steps]


@pytest.mark.parametrize(
    ("target", "core", "reason"),
    [
        ("arm-neon", "zen5", "lacks AArch64"),
        ("arm-neon+dotprod", "cortex-a72", "lacks AArch64 with NEON and 8-bit dot products"),
        ("arm-neon", "cortex-a999", "unknown core"),
        ("metal", "apple-m1", "has no cores to choose from"),
    ],
)
def test_bad_cores_are_refused(target: str, core: str, reason: str) -> None:
    with pytest.raises(MdlcError, match="--core") as caught:
        mdlc.compile(block_model(), target, core=core)
    assert reason in caught.value.reason


# --- tables of measurements


def test_shipped_tables_hold_for_their_core_and_where_none_is_named() -> None:
    avx2 = find_target("x86-avx2")
    assert shipped_tables(avx2.backend).tables
    assert shipped_tables(avx2.with_core("zen5").backend).tables
    assert not shipped_tables(avx2.with_core("haswell").backend).tables
    # A mean over two cores, which is neither's.
    assert shipped_tables(find_target("arm-neon").backend).tables
    assert not shipped_tables(find_target("arm-neon").with_core("cortex-a76").backend).tables


def test_a_table_of_another_core_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "zen5.json"
    path.write_bytes(ScheduleTable("x86-avx2", "ns", "AMD", "g++", core="zen5").to_json())
    mdlc.compile(block_model(), "x86-avx2", tuned=path)
    mdlc.compile(block_model(), "x86-avx2", core="zen5", tuned=path)
    with pytest.raises(MdlcError, match="was measured on core zen5, not on haswell"):
        mdlc.compile(block_model(), "x86-avx2", core="haswell", tuned=path)
    older = json.loads(path.read_text())
    del older["core"]
    path.write_text(json.dumps(older))
    mdlc.compile(block_model(), "x86-avx2", core="haswell", tuned=path)


def test_a_core_that_is_no_text_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    content = json.loads(ScheduleTable("generic", "ns", "any", "g++").to_json())
    path.write_text(json.dumps({**content, "core": 3}))
    model = tmp_path / "block.onnx"
    onnx.save(block_model(), model)
    with pytest.raises(MdlcError, match="its core is not a text"):
        mdlc.compile(model, "generic", tuned=path)
