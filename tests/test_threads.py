"""Classes that compute on several threads: the same results, no races, any number of threads."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mdlc.codegen.code import Call, Function, Microkernel, Pointer, Statement, body
from mdlc.codegen.cpp import emit as emit_cpp
from mdlc.codegen.cpp import variant
from mdlc.codegen.cpp.functions import Functions
from mdlc.codegen.gemm.product_loops import parallel_level
from mdlc.codegen.gemm.shape import Product, Steps, regions
from mdlc.codegen.isa.registry import find_isa
from mdlc.codegen.kernel import Schedule
from mdlc.codegen.plan.lowering import lower
from mdlc.codegen.run.executable import Executable
from mdlc.codegen.run.toolchain import BUILD_FLAGS, find_toolchain
from mdlc.codegen.threads import balance, best_level, loop, loop_cases
from mdlc.compiler.op import Op
from mdlc.passes.canonicalise import lower_batch_norm
from mdlc.passes.layout import assign_layout
from tests.op_samples import sampled_ops
from tests.targets import TARGETS, require
from tests.test_kernels import network_of


@pytest.fixture
def share_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small layers, too."""
    monkeypatch.setattr(variant, "_WORTH_SHARING", -1)


@pytest.mark.usefixtures("share_everything")
@pytest.mark.parametrize("target", ["host", "arm-neon"])
@pytest.mark.parametrize("cls", sampled_ops(), ids=lambda cls: cls.__name__)
def test_results_do_not_depend_on_threads(cls: type[Op], target: str) -> None:
    require(target)
    graph, values = network_of(cls)
    graph = assign_layout(lower_batch_norm(graph))
    isa = find_isa(target)
    one = Executable(lower(graph, isa, "Samples"))(values)
    three = Executable(lower(graph, isa, "Samples", threads=3), flags=("-Werror", "-Wall"))(values)
    for name, expected in one.items():
        np.testing.assert_array_equal(three[name], expected, err_msg=name)


@pytest.mark.usefixtures("share_everything")
@pytest.mark.parametrize("name", ["Conv2D", "MaxPool2D", "Attention"])
def test_no_races(name: str) -> None:
    require("host")
    graph, values = network_of(next(cls for cls in sampled_ops() if cls.__name__ == name))
    plan = lower(assign_layout(lower_batch_norm(graph)), find_isa("host"), "Samples", threads=4)
    Executable(plan, flags=("-fsanitize=thread", "-g"))(values)


def spelled(*statements: Statement | Sequence[Statement], shared: bool) -> str:
    functions = Functions()
    functions.add(Function("f", (), (), body(*statements)), shared=shared)
    return " ".join(functions.texts[0].split())


def test_parallel_loops_are_plain_or_run_by_the_pool() -> None:
    microkernel = Microkernel("g", "")
    call = Call(microkernel, (Pointer("s", (("i", 1),), own=16), "i"))
    loops = loop("i", 7, (call,), shared=True)
    plain = spelled(loops, shared=False)
    assert plain == "void f() { for (int i = 0; i < 7; ++i) { g(s + i, i); } }"
    assert spelled(loops, shared=True) == (
        "void f(ThreadPool& pool) { "
        "pool.Run(7, [&](int i, int thread) { g(s + thread * 16 + i, i); }); }"
    )
    assert spelled(loop("i", 1, (call,), shared=True), shared=True) == "void f() { g(s + i, i); }"


def test_kinds_of_iterations_share_one_loop() -> None:
    cases = [(3, body("f(i);")), (1, body("g();")), (2, body("h(i);"))]
    assert spelled(loop_cases("i", cases, shared=True), shared=True) == (
        "void f(ThreadPool& pool) { "
        "pool.Run(6, [&](int item, int) { if (item < 3) { const int i = item; f(i); } "
        "else if (item < 4) { g(); } else { const int i = item - 4; h(i); } }); }"
    )
    apart = "for (int i = 0; i < 3; ++i) { f(i); } g(); for (int i = 0; i < 2; ++i) { h(i); }"
    assert spelled(loop_cases("i", cases, shared=True), shared=False) == f"void f() {{ {apart} }}"
    assert spelled(loop_cases("i", cases, shared=False), shared=True) == f"void f() {{ {apart} }}"


def test_functions_that_differ_get_names_of_their_own() -> None:
    one, other = (Function("f", (), (), body(text)) for text in ("a();", "b();"))
    caller = Function("g", (), (), (Call(one, ()), Call(other, ()), Call(one, ())))
    functions = Functions(taken=["f_v2"])
    assert functions.add(caller) == "g"
    assert [" ".join(text.split()) for text in functions.texts] == [
        "void f() { a(); }", "void f_v3() { b(); }", "void g() { f(); f_v3(); f(); }",
    ]  # fmt: skip
    assert functions.add(Function("f", (), (), body("b();"))) == "f_v3"


def test_blocks_of_pixels_come_in_numbers_that_threads_can_share() -> None:
    isa = find_isa("x86-avx2").of(())
    step = Steps(0, 0, 64, 0)
    for channels, blocks in ((16, 4), (4096, 2)):  # more pixels than weights, and fewer
        product = Product(1, 1, 300, 1, channels, 64, (), step, step)
        found = regions(product, Schedule("direct", (6, 8), (150,)))
        assert sum(region.count for region in found) == blocks
        assert sum(region.count * region.columns for region in found) == 300
        levels = {
            parallel_level(product, Schedule("direct", (6, 8), (150,)), isa, r) for r in found
        }
        assert levels == ({"block"} if blocks == 4 else {"n"})


def test_the_outermost_balanced_loop_is_shared() -> None:
    assert balance(8) == 1.0
    assert balance(3) == 0.75
    assert best_level([("rows", 3), ("blocks", 16), ("columns", 64)]) == "blocks"
    assert best_level([("rows", 3), ("blocks", 1)]) == "rows"


def test_only_classes_with_threads_have_a_pool() -> None:
    graph, _ = network_of(next(cls for cls in sampled_ops() if cls.__name__ == "Conv2D"))
    graph = assign_layout(lower_batch_norm(graph))
    isa = find_isa(TARGETS[0])
    for threads in (1, 2):
        plan = lower(graph, isa, "Samples", threads=threads)
        info = emit_cpp.Info("m", "0", "c", "v")
        files = emit_cpp.emit(plan, info)
        text = b"".join(data for name, data in files.items() if name.startswith("Samples")).decode(
            "latin-1"
        )
        assert ("ThreadPool" in text) == (threads > 1)
        assert ("int threads" in text) == (threads > 1)


POOL = """
#include <cstdio>

#include "Samples_internal.h"

int main() {
  Samples_internal::ThreadPool pool(3);  // never started: workers to which the system gives no time
  int sum = 0;
  for (int round = 0; round < 50; ++round) {
    pool.Run(101, [&](int i, int) { sum += i; });
  }
  std::printf("%d\\n", sum);
  return 0;
}
"""


def test_a_worker_that_has_not_begun_holds_nothing_up(tmp_path: Path) -> None:
    require("host")
    graph, _ = network_of(next(cls for cls in sampled_ops() if cls.__name__ == "Conv2D"))
    isa = find_isa("host")
    plan = lower(assign_layout(lower_batch_norm(graph)), isa, "Samples", threads=3)
    for name, content in emit_cpp.emit(plan, emit_cpp.Info("m", "0", "c", "v")).items():
        (tmp_path / name).write_bytes(content)
    source, program = tmp_path / "pool.cpp", tmp_path / "pool"
    source.write_text(POOL)
    find_toolchain(isa).compile([source], program, [*BUILD_FLAGS, "-pthread"])
    done = subprocess.run([program], capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) == 50 * 101 * 50
