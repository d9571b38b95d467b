"""Benchmarks: what they compute from readings, and the plugins of qemu on known patterns."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from mdlc.codegen import cache_model, instruction_counts
from mdlc.codegen.cache_model import CoreModel
from mdlc.codegen.qemu_plugins import Reading, minus, readings, split, watch

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
