"""What belongs to the pipeline and not to passes: verification, dumps, comparison, bisection."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.interpreter import run
from mdlc.compiler.ir import Graph, Node, make
from mdlc.compiler.ops.cast import Cast
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.input import graph_input
from mdlc.compiler.ops.mul import Mul
from mdlc.compiler.ops.neg import Neg
from mdlc.compiler.ops.relu import Relu
from mdlc.compiler.rewrite import Budget, Rule, Var, pat, rewrite
from mdlc.compiler.text import difference, parse_graph
from mdlc.compiler.types import DType
from mdlc.passes.pipeline import random_inputs, run_passes
from mdlc.pipeline import PASSES, optimise, stages
from tests.passes.ir import graph, operators

NETWORK = """
    %x: f32[1,3,8,8] = Input() "x"
    %w: f32[8,3,3,3] = Random(1)
    %b: f32[8] = Random(2)
    %p: f32[1,3,10,10] = Pad((0, 0, 1, 1), (0, 0, 1, 1))(%x)
    %c: f32[1,8,8,8] = Conv2D()(%p, %w, %b) "conv1"
    %s: f32[8] = Random(3)
    %t: f32[8] = Random(4)
    %m: f32[8] = Random(5)
    %v: f32[8] = Full(0.5)
    %n: f32[1,8,8,8] = BatchNormalization()(%c, %s, %t, %m, %v) "norm1"
    %r: f32[1,8,8,8] = Relu()(%n) "relu1"
    %g: f32[1,8,1,1] = Reduce('mean', (2, 3))(%r)
    return y=%g
"""


def same(graph: Graph) -> Graph:
    return graph


def _changed_output(graph: Graph, change: Node) -> Graph:
    return graph.with_outputs((change,))


def doubles(graph: Graph) -> Graph:
    return _changed_output(graph, make(Mul(), graph.outputs[0], constant(np.float32(2))))


def to_nan(graph: Graph) -> Graph:
    return _changed_output(graph, make(Mul(), graph.outputs[0], constant(np.float32(np.nan))))


def retypes(graph: Graph) -> Graph:
    return _changed_output(graph, make(Cast(DType.F64), graph.outputs[0]))


def renames(graph: Graph) -> Graph:
    return replace(graph, output_names=("z",))


def mistypes(graph: Graph) -> Graph:
    """Claims a type inside that does not follow from the inputs."""
    x = graph.outputs[0]
    wrong = replace(make(Relu(), x), type=x.type.with_dtype(DType.F64))
    return _changed_output(graph, make(Cast(DType.F32), wrong))


def test_the_whole_pipeline() -> None:
    found = stages(graph(NETWORK), check=True)
    assert [s.name for s in found] == ["import", *(p.__name__ for p in PASSES)]
    assert all(s.seconds >= 0 for s in found)
    layers = [n for n in found[-1].graph.order() if type(n.op).__name__ == "Conv2D"]
    assert [n.name for n in layers] == ["relu1"]
    assert "Relu" not in operators(found[-1].graph)


@pytest.mark.parametrize("harmful", [doubles, to_nan])
def test_check_names_the_pass_that_does_harm(harmful) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(MdlcError, match=f"pass {harmful.__name__} changes output 'y'"):
        run_passes(graph(NETWORK), [same, harmful, same], check=True)


def test_without_check_numbers_are_not_looked_at() -> None:
    assert len(run_passes(graph(NETWORK), [same, doubles])) == 3


@pytest.mark.parametrize("harmful", [retypes, renames, mistypes])
def test_ill_typed_graphs_are_always_found(harmful) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RuntimeError, match=harmful.__name__):
        run_passes(graph(NETWORK), [same, harmful])


def test_dumps_can_be_read_back(tmp_path: Path) -> None:
    source = graph(NETWORK)
    found = stages(source, dump=tmp_path / "dump")
    files = sorted(p.name for p in (tmp_path / "dump").glob("*.mdl"))
    assert files == [f"{i:03d}_{s.name}.mdl" for i, s in enumerate(found)]
    inputs = random_inputs(source)
    expected = run(source, inputs)["y"]
    for name, stage in zip(files, found, strict=True):
        path = tmp_path / "dump" / name
        with np.load(path.with_suffix(".npz")) as data:
            read = parse_graph(path.read_text(encoding="utf-8"), data)
        assert difference(read, stage.graph) is None
        np.testing.assert_allclose(run(read, inputs)["y"], expected, rtol=1e-4, atol=1e-5)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MdlcError, match="cannot write"):
        stages(graph(NETWORK), dump=tmp_path / "file")


def test_the_number_of_rewrites_is_limited_over_all_passes() -> None:
    rule = Rule("flip", pat(Neg, Var("x")), lambda m: make(Relu(), m["x"]))

    def flip(g: Graph, *, budget: Budget | None = None) -> Graph:
        return rewrite(g, (rule,), budget)

    node = x = graph_input("x", (2,))
    for _ in range(5):
        node = make(Neg(), node)
    source = Graph((x,), (node,), ("y",))
    for limit in range(7):
        after = run_passes(source, [flip, flip], max_rewrites=limit)[-1].graph
        assert operators(after).count("Relu") == min(limit, 5)


def test_bisection_reaches_the_full_result() -> None:
    source = graph(NETWORK)
    nothing, everything = optimise(source, max_rewrites=0), optimise(source, max_rewrites=1000)
    assert {"Pad", "BatchNormalization", "Relu"} <= set(operators(nothing))
    assert difference(everything, optimise(source)) is None


def test_stops_after_a_pass() -> None:
    found = stages(graph(NETWORK), stop_after="fuse_pad")
    assert found[-1].name == "fuse_pad"
    assert stages(graph(NETWORK), stop_after="import")[-1].name == "import"
    with pytest.raises(MdlcError, match="no pass 'polish'"):
        stages(graph(NETWORK), stop_after="polish")


def test_random_inputs_are_seeded_and_of_the_right_type() -> None:
    source = parse_graph(
        '%a: f16[4] = Input() "a"\n%b: u8[100] = Input() "b"\n%c: bool[50] = Input() "c"\n'
        '%d: i64[50] = Input() "d"\nreturn a=%a, b=%b, c=%c, d=%d'
    )
    values = random_inputs(source)
    assert {name: v.dtype for name, v in values.items()} == {
        "a": np.float16, "b": np.uint8, "c": np.bool_, "d": np.int64
    }  # fmt: skip
    assert values["b"].max() > 127
    assert set(values["c"]) == {False, True}
    assert all(np.array_equal(v, random_inputs(source)[k]) for k, v in values.items())
    assert not np.array_equal(values["b"], random_inputs(source, seed=1)["b"])
