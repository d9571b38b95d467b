"""Benchmarks: what they compute from readings, and the plugins of qemu on known patterns."""

from __future__ import annotations

import ast
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

import mdlc
from benchmarks import arm, arm_worker, mca, no_avx512, peers, plots, roofline, threads
from benchmarks.arm_machine import find
from benchmarks.cli import Missing
from benchmarks.networks import NETWORKS
from benchmarks.peers import Measured
from benchmarks.processes import Worker
from mdlc.codegen.run import cache_model, instruction_counts
from mdlc.codegen.run.cache_model import CoreModel
from mdlc.codegen.run.qemu_plugins import Reading, minus, readings, split, watch

# What runs between two readings of the clock, in C, on `memory` of 1 MiB.
PATTERN = """
#include <stdlib.h>
#include <time.h>
static char memory[1 << 20] __attribute__((aligned(4096)));
static void Read(void) {{ struct timespec now; clock_gettime(CLOCK_MONOTONIC, &now); }}
int main(void) {{
  volatile char* at = memory;
  for (int i = 0; i < 1 << 20; i += 64) at[i] = 0;
  Read();
  Read();
  {body}
  Read();
  return 0;
}}
"""
SMALL = CoreModel("small", 4 << 10, 4, 32 << 10, 4, exclusive=False)
VICTIM = CoreModel("victim", 4 << 10, 4, 32 << 10, 4, exclusive=True)


@pytest.mark.parametrize(
    "path", sorted(Path(mca.__file__).parent.rglob("*.py")), ids=lambda p: p.stem
)
def test_what_they_take_of_mdlc_is_there(path: Path) -> None:
    """Of those, too, that no test runs."""
    for each in ast.walk(ast.parse(path.read_text())):
        if isinstance(each, ast.ImportFrom) and (each.module or "").startswith("mdlc"):
            exec(compile(ast.Module([each], []), str(path), "exec"), {})


def measured(body: str, plugin: str, word: str, options: list[str], folder: Path) -> Reading:
    """The plugin's numbers of one piece of C, on AArch64."""
    compiler, qemu = shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64")
    if not compiler or not qemu:
        pytest.skip("needs aarch64-linux-gnu-gcc and qemu-aarch64")
    source, program = folder / "pattern.c", folder / "pattern"
    source.write_text(PATTERN.format(body=body))
    command = [compiler, "-O1", "-static", str(source), "-o", str(program)]
    subprocess.run(command, check=True)
    lines = watch(plugin, [qemu, "-cpu", "cortex-a72"], [str(program)], options)
    first, second, last = readings(lines, word)[-4:-1]
    return minus(minus(last, second), minus(second, first))


def misses(body: str, core: CoreModel, folder: Path) -> cache_model.Misses:
    cores = (core,)
    reading = measured(
        body, cache_model.PLUGIN, cache_model.WORD, cache_model.options(cores), folder
    )
    return cache_model.traffic(reading, cores).misses[core.name]


# The stack and the kernel's timespec take a line or two.
SLACK = 4


def near(value: int, expected: int) -> bool:
    return abs(value - expected) <= SLACK


@pytest.mark.parametrize("core", [SMALL, VICTIM])
def test_a_strided_walk_misses_each_line_once(core: CoreModel, tmp_path: Path) -> None:
    # 1 MiB in steps of 256 bytes: 4096 lines, every one new to both caches.
    found = misses("for (int i = 0; i < 1 << 20; i += 256) (void)at[i];", core, tmp_path)
    assert near(found.l1_reads, 4096)
    assert near(found.l2, 4096)
    assert found.l1_writes <= SLACK


@pytest.mark.parametrize("core", [SMALL, VICTIM])
def test_what_fits_is_missed_only_the_first_time(core: CoreModel, tmp_path: Path) -> None:
    # 2 KiB fit in L1: 32 lines, ten times over.
    body = "for (int k = 0; k < 10; ++k) for (int i = 0; i < 2048; i += 16) (void)at[i];"
    found = misses(body, core, tmp_path)
    assert near(found.l1_reads, 32)
    assert near(found.l2, 32)


def test_least_recently_used_lines_thrash_a_set(tmp_path: Path) -> None:
    # Sets of L1 repeat every 1 KiB. Five lines of one set in turn never hit in four ways; four do.
    loop = "for (int k = 0; k < 100; ++k) for (int i = 0; i < {0}; ++i) (void)at[i * 1024];"
    assert near(misses(loop.format(4), SMALL, tmp_path).l1_reads, 4)
    five = misses(loop.format(5), SMALL, tmp_path)
    assert near(five.l1_reads, 500)
    assert near(five.l2, 5)


@pytest.mark.parametrize(("exclusive", "expected"), [(True, 8), (False, 800)])
def test_an_exclusive_second_cache_adds_to_the_first(
    exclusive: bool, expected: int, tmp_path: Path
) -> None:
    # Two caches of four ways, eight lines of one set in turn: four and four, or never a hit.
    core = CoreModel("core", 4 << 10, 4, 4 << 10, 4, exclusive)
    body = "for (int k = 0; k < 100; ++k) for (int i = 0; i < 8; ++i) (void)at[i * 1024];"
    assert near(misses(body, core, tmp_path).l2, expected)


@pytest.mark.parametrize("core", [SMALL, VICTIM])
def test_stores_allocate_and_are_written_back(core: CoreModel, tmp_path: Path) -> None:
    found = misses("for (int i = 0; i < 1 << 20; i += 64) at[i] = 1;", core, tmp_path)
    lines = (1 << 20) // 64
    assert near(found.l1_writes, lines)
    assert near(found.l2, lines)
    # The walk before the first reading left both caches full of lines already written to.
    assert near(found.writebacks, lines)
    assert found.memory_bytes == (found.l2 + found.writebacks) * 64


def test_bytes_are_those_of_the_instructions(tmp_path: Path) -> None:
    body = "for (int i = 0; i < 1000; ++i) { *(volatile long*)(at + 8 * i) = 0; (void)at[i]; }"
    reading = measured(body, cache_model.PLUGIN, cache_model.WORD, [SMALL.option], tmp_path)
    assert abs(reading[1] - 8000) <= 64
    assert abs(reading[0] - 1000) <= 64


def test_instructions_are_counted_by_class(tmp_path: Path) -> None:
    # Assembly, so that the counts are known: ten times four of each, and the loop's two.
    body = """long n = 10;
    __asm__ volatile(
      "1: .rept 4\\n"
      "fmla v0.4s, v1.4s, v2.s[0]\\n ldr q3, [%1]\\n str q3, [%1]\\n prfm pldl1keep, [%1]\\n"
      "ldrsw x9, [%1]\\n ldp q3, q4, [%1]\\n"
      ".endr\\n subs %0, %0, #1\\n b.ne 1b\\n"
      : "+r"(n) : "r"(memory) : "v0", "v1", "v2", "v3", "v4", "x9", "cc", "memory");"""
    reading = measured(body, instruction_counts.PLUGIN, instruction_counts.WORD, [], tmp_path)
    found = dict(zip(instruction_counts.CLASSES, reading, strict=True))
    assert found["fmla"] == 40
    assert found["prefetch"] == 40
    assert 120 <= found["load"] <= 122
    assert 40 <= found["store"] <= 42
    assert 10 <= found["branch"] <= 12
    assert 260 <= found["all"] <= 270


def test_the_runners_readings_fall_apart_into_layers() -> None:
    # Two inferences of 100 with a reading of 1 between; then layers of 30 and 70, twice.
    moments = [0, 101, 102, 203, 210, 241, 312, 320, 351, 422]
    found = split([(m, 2 * m) for m in moments], ["a", "b"])
    assert found.total == (100, 200)
    assert found.layers == {"a": (30, 60), "b": (70, 140)}


REPORT = """
[0] Code Region - loop0

Iterations:        400
Instructions:      9600
Total Cycles:      4804
Total uOps:        9600

Dispatch Width:    2
uOps Per Cycle:    2.00
IPC:               2.00
Block RThroughput: 12.0

[1] Code Region - loop1

Iterations:        400
Instructions:      400
Total Cycles:      410

Dispatch Width:    2
Block RThroughput: 0.5
"""


def test_llvm_mcas_report_is_read_region_by_region() -> None:
    assert mca.parse(REPORT) == [mca.Cycles(4804 / 400, 12.0), mca.Cycles(410 / 400, 0.5)]


def test_a_loops_instructions_are_told_from_the_rest() -> None:
    body = "1:\n\t.p2align 4\n\tfmla\tv0.4s, v1.4s, v2.4s // x\n\tfmla v3.2s, v1.2s, v2.2s\n"
    body += "\tb.ne 1b"
    found = mca.instructions(body)
    assert found[-1] == "b.ne 1b"
    assert len(found) == 3
    assert mca.Loop("loop", found).fmlas == 1


def test_llvm_mca_has_a_cortex_a55_of_one_multiply_add_a_cycle() -> None:
    program = next((p for p in ("llvm-mca-19", "llvm-mca") if shutil.which(p)), None)
    if program is None:
        pytest.skip("needs llvm-mca")
    core = mca.CORES[0]
    model, rate = mca.choose_model(program, core)
    loop = mca.Loop("twelve", tuple(f"fmla v{i}.4s, v30.4s, v31.s[0]" for i in range(12)))
    (found,) = mca.cycles(program, model, [loop])
    assert abs(found.taken * rate - 12) < 0.5
    assert abs(found.units * rate - 12) < 0.5
    # A chain of additions waits for each, though no unit is busy.
    chain = mca.Loop("chain", ("fmla v0.4s, v1.4s, v2.4s",) * 4)
    assert mca.cycles(program, model, [chain])[0].taken >= 12


def test_an_inference_is_found_between_the_workers_words() -> None:
    lines = ["COUNTS 5 5", f"x{arm_worker.BEGIN}", "COUNTS 10 1", "COUNTS 11 1", "COUNTS 99 9"]
    lines += [arm_worker.END, arm_worker.BEGIN, "COUNTS 110 10", "COUNTS 112 10"]
    # The runtime reads the clock too.
    lines += ["a word", "COUNTS 150 12", "COUNTS 214 20", arm_worker.END, "COUNTS 400 30"]
    assert arm.inference(lines, "COUNTS") == (214 - 112 - 2, 10)


def test_ratios_are_those_to_the_best_peer_of_each_round() -> None:
    row = {
        "mdlc": Measured((1.0, 4.0, 1.0), 1024, 0),
        "a": Measured((2.0, 5.0, 9.0), 3072, 1024),
        "b": Measured((4.0, 16.0, 2.0), 1024, 0),
    }
    assert peers.ratio_to_best(row) == 0.5
    assert peers.ratio_to_best({"mdlc": row["mdlc"]}) is None
    assert (row["a"].milliseconds, row["a"].megabytes) == (5.0, 2.0)
    assert arm.to_best({"mdlc": 90, "ncnn": 100, "mnn": 120}) == 0.9
    assert arm.to_best({"ncnn": 100}) is None


def test_tables_have_a_row_for_each_network() -> None:
    row = {"mdlc": (90, 80), "ncnn": (100, 85)}
    table = arm.counts_table({"one": row, "two": row}, {"one": 70, "two": 70})
    assert list(table.columns[-1].cells) == ["0.900", "0.900", "0.900"]
    results = {"one": {"mdlc": Measured((1.0,), 1024, 0), "ncnn": Measured((2.0,), 4096, 1024)}}
    assert list(peers.time_table(results).columns[-1].cells) == ["0.500"]
    assert list(peers.memory_table(results).columns[2].cells) == ["3.0 (4)"]


def test_a_layers_limit_is_the_larger_of_two() -> None:
    layer = roofline.Layer("conv", "conv", "direct", 1000, 100, 40.0, 10.0, 20.0)
    assert (layer.limit, layer.share, layer.intensity) == (20.0, 0.5, 10.0)
    table = roofline.table_of([layer, layer], "us")
    assert list(table.columns[7].cells) == ["memory", "memory", ""]
    assert list(table.columns[8].cells) == ["50", "50", "50"]


def test_a_layers_work_is_its_tensors_and_weights() -> None:
    plan = mdlc.compile(NETWORKS["shufflenet_v2"](), "generic").plan
    first = plan.steps[0]
    macs, nbytes = roofline.work([first])
    assert macs == 112 * 112 * 24 * 27
    weights = sum(array.nbytes for array in first.weights.values())
    assert nbytes == 4 * (3 * 224 * 224 + 24 * 112 * 112) + weights


def test_plots_are_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plots.bars({"one": {"a": 1.0, "b": 2.0}, "two": {"b": 1.5}}, "height", tmp_path / "bars.svg")
    plots.roofline([(1.0, 5.0), (30.0, 90.0)], 100.0, 10.0, "GFLOP/s", tmp_path / "roof.svg")
    for name in ("bars.svg", "roof.svg"):
        text = (tmp_path / name).read_text()
        assert text.count("<path") > 5


ECHO = """
import sys
print("ready", flush=True)
for line in sys.stdin:
    if line == "end\\n":
        sys.exit("had enough")
    print(line.strip() * 2, flush=True)
"""


def test_a_worker_answers_and_says_why_it_ended(tmp_path: Path) -> None:
    with Worker("echo", [sys.executable, "-c", ECHO], tmp_path / "errors") as worker:
        assert worker.ask("ab") == "abab"
        assert worker.ask("c") == "cc"
        with pytest.raises(click.ClickException, match="had enough"):
            worker.ask("end")


def test_peers_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="--fetch"):
        find(tmp_path)
    with pytest.raises(Missing, match="no program nosuch"):
        mca.find_program("nosuch")


def test_workers_run_at_once_and_the_mean_counts(tmp_path: Path) -> None:
    # Each answers when both have been asked: one after the other would never end.
    code = (
        "import sys, time; from pathlib import Path; print('ready', flush=True)\n"
        "for line in sys.stdin:\n"
        f"    folder = Path({str(tmp_path)!r}); (folder / sys.argv[1]).touch()\n"
        "    while not ((folder / '1').exists() and (folder / '3').exists()): time.sleep(0.01)\n"
        "    print(sys.argv[1], flush=True)\n"
    )
    command = [sys.executable, "-c", code]
    with (
        Worker("one", [*command, "1"], tmp_path / "errors1") as one,
        Worker("three", [*command, "3"], tmp_path / "errors3") as three,
    ):
        assert threads.at_once([one, three], 5) == 2.0


# Prints what the processor says of itself: the vendor's name, then AVX2 and AVX-512 F.
CPUID = """
#include <cpuid.h>
#include <stdio.h>
int main(void) {
  unsigned a, b, c, d;
  __cpuid(0, a, b, c, d);
  printf("%x%x%x ", b, d, c);
  __cpuid_count(7, 0, a, b, c, d);
  printf("%u %u\\n", b >> 5 & 1, b >> 16 & 1);
  return 0;
}
"""


def test_a_program_is_told_that_there_is_no_avx512(tmp_path: Path) -> None:
    if platform.machine() != "x86_64" or not shutil.which("cc") or not shutil.which("objdump"):
        pytest.skip("needs x86-64, cc and objdump")
    source, program = tmp_path / "cpuid.c", tmp_path / "cpuid"
    source.write_text(CPUID)
    subprocess.run(["cc", "-O1", str(source), "-o", str(program)], check=True)

    def says(**environment: str) -> list[str]:
        command = [str(program)]
        told = os.environ | environment
        return subprocess.run(
            command, env=told, check=True, capture_output=True, text=True
        ).stdout.split()

    vendor, avx2, _ = says()
    assert no_avx512.replace_cpuid(program) == 2
    handler = no_avx512.build_handler(tmp_path)
    assert says(LD_PRELOAD=str(handler)) == [vendor, avx2, "0"]


def test_a_package_without_cpuid_cannot_be_narrowed(tmp_path: Path) -> None:
    if not shutil.which("objdump"):
        pytest.skip("needs objdump")
    with pytest.raises(click.ClickException, match="click has no cpuid instruction"):
        no_avx512.copy_package("click", tmp_path)
