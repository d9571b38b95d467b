"""Classes that compute on several threads: the same results, no races, any number of threads."""

from __future__ import annotations

import numpy as np
import pytest

from mdlc.codegen import emit_cpp
from mdlc.codegen.executable import Executable
from mdlc.codegen.isa import find_isa
from mdlc.codegen.kernel import LayerCode
from mdlc.codegen.lowering import lower
from mdlc.codegen.threads import balance, best_level, open_parallel, own, resolve
from mdlc.compiler.op import Op
from mdlc.passes.canonicalise import lower_batch_norm
from mdlc.passes.layout import assign_layout
from tests.op_samples import sampled_ops
from tests.targets import TARGETS, require
from tests.test_kernels import network_of


@pytest.fixture
def share_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small layers, too."""
    monkeypatch.setattr(emit_cpp, "_WORTH_SHARING", -1)


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
@pytest.mark.parametrize("name", ["Conv2D", "MaxPool2D"])
def test_no_races(name: str) -> None:
    require("host")
    graph, values = network_of(next(cls for cls in sampled_ops() if cls.__name__ == name))
    plan = lower(assign_layout(lower_batch_norm(graph)), find_isa("host"), "Samples", threads=4)
    Executable(plan, flags=("-fsanitize=thread", "-g"))(values)


def test_marks_become_loops_or_runs() -> None:
    text = f"void f(float* s) {{\n{open_parallel('i', 7)}\ng(s{own(16)}, i);\n@}}\n}}"
    code = LayerCode("f", text)
    assert resolve(code, 1).text == (
        "void f(float* s) {\nfor (int i = 0; i < 7; ++i) {\ng(s, i);\n}\n}"
    )
    shared = resolve(code, 2)
    assert shared.parallel
    assert shared.text == (
        "void f(ThreadPool& pool, float* s) {\n"
        "pool.Run(7, [&](int i, int thread) {\ng(s + thread * 16, i);\n});\n}"
    )


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
        text = (files["Samples.h"] + files["Samples.cpp"]).decode()
        assert ("ThreadPool" in text) == (threads > 1)
        assert ("int threads" in text) == (threads > 1)
