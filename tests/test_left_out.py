"""Networks without some or all passes, and the pass and rewrite that `bisect` finds at fault.

The reference interpreter in single precision plays most classes, so that no C++ is built.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import mdlc
from mdlc.checks import bisect as bisection
from mdlc.checks.bisect import bisect, find_culprit, keeps_tensors
from mdlc.checks.compare import relative_error
from mdlc.checks.verification import Judge, verify
from mdlc.cli import invoke
from mdlc.compiler.ir import Graph, make
from mdlc.compiler.onnx_export import export_onnx
from mdlc.compiler.ops.add import Add
from mdlc.compiler.ops.constant import constant
from mdlc.compiler.ops.input import graph_input
from mdlc.compiler.ops.leaky_relu import LeakyRelu
from mdlc.compiler.ops.relu import Relu
from mdlc.compiler.rewrite import Budget, Match, Rule, Var, pat, rewrite
from mdlc.compiler.text import print_graph
from mdlc.inputs.pictures import random_inputs
from mdlc.pipeline import FUSE_ROWS, NEEDED, OPTIONAL, PASSES, left_out, optimise
from tests.golden_models import mixed_model
from tests.injected_faults import played
from tests.onnx_models import model as onnx_model
from tests.onnx_models import node, value
from tests.passes.test_random_graphs import Grower
from tests.test_api import DIGITS

SEEDS = (7, 20, 31)


def grown(seed: int) -> bytes:
    return export_onnx(Grower(seed).grow(14)).SerializeToString()


def built(
    nodes: list[onnx.NodeProto], x: tuple[int, list[int]], y: list[int], weights: dict[str, Any]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", *x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def floats() -> onnx.ModelProto:
    """Bytes of a picture, a shuffle of channels, a residual sum, channels that nobody reads, a
    flattening, and constants to fold."""
    rng = np.random.default_rng(0)

    def values(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float32) / 4

    weights = {
        "half": np.float32(60.0), "mean": np.float32(120.0), "std": np.float32(1 / 50),
        "w1": values(8, 3, 3, 3), "b1": values(8), "w2": values(8, 8, 1, 1),
        "w3": values(8, 8, 3, 3), "w4": values(5, 64), "b4": values(5),
        "split": np.int64([1, 2, 4, 8, 8]), "join": np.int64([1, 8, 8, 8]),
        "from": np.int64([0]), "to": np.int64([4]), "axis": np.int64([1]),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Cast", ["image"], ["float"], to=1),
        node("Add", ["half", "half"], ["twice"]),
        node("Sub", ["float", "twice"], ["centred"]),
        node("Mul", ["centred", "std"], ["x"]),
        node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1] * 4),
        node("Relu", ["c1"], ["r1"]),
        node("Relu", ["c1"], ["again"]),
        node("Conv", ["again", "w2"], ["c2"]),
        node("Reshape", ["c2", "split"], ["s"]),
        node("Transpose", ["s"], ["t"], perm=[0, 2, 1, 3, 4]),
        node("Reshape", ["t", "join"], ["shuffled"]),
        node("Conv", ["shuffled", "w3"], ["c3"], pads=[1] * 4),
        node("Add", ["c3", "r1"], ["sum"]),
        node("Relu", ["sum"], ["rs"]),
        node("Conv", ["rs", "w2"], ["c5"]),
        node("Slice", ["c5", "from", "to", "axis"], ["some"]),
        node("MaxPool", ["some"], ["small"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["small"], ["flat"]),
        node("Gemm", ["flat", "w4", "b4"], ["y"], transB=1),
    ]
    return built(nodes, (TensorProto.UINT8, [1, 3, 8, 8]), [1, 5], weights)


def eight_bits() -> onnx.ModelProto:
    """Convolutions and a sum in 8 bits."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.integers(-90, 90, (4, 4, 3, 3)).astype(np.int8),
        "s": np.float32(0.02), "z": np.int8(3), "ws": np.float32(0.01), "wz": np.int8(0),
        "b": rng.standard_normal(4).astype(np.float32),
        "f": rng.standard_normal((4, 3, 3, 3)).astype(np.float32) / 200,
    }  # fmt: skip
    node, linear = helper.make_node, ["s", "z"]
    nodes = [
        node("Cast", ["image"], ["float"], to=1),
        node("Conv", ["float", "f", "b"], ["first"], pads=[1] * 4),
        node("QuantizeLinear", ["first", *linear], ["q"]),
        node("DequantizeLinear", ["q", *linear], ["x"]),
        node("DequantizeLinear", ["w", "ws", "wz"], ["wf"]),
        node("Conv", ["x", "wf", "b"], ["c"], pads=[1] * 4),
        node("QuantizeLinear", ["c", *linear], ["cq"]),
        node("DequantizeLinear", ["cq", *linear], ["cf"]),
        node("Add", ["cf", "x"], ["sum"]),
        node("QuantizeLinear", ["sum", *linear], ["sq"]),
        node("DequantizeLinear", ["sq", *linear], ["y"]),
    ]
    return built(nodes, (TensorProto.UINT8, [1, 3, 8, 8]), [1, 4, 8, 8], weights)


def attention() -> bytes:
    """Two heads of six queries and keys."""
    found = onnx_model(
        [
            node("MatMul", "q k", "scores"),
            node("Softmax", "scores", "shares", axis=-1),
            node("MatMul", "shares v", "y"),
        ],
        [value("q", (1, 2, 6, 8)), value("k", (1, 2, 8, 6)), value("v", (1, 2, 6, 8))],
        [value("y", (1, 2, 6, 8))],
        [],
    )
    return bytes(found.SerializeToString())


@pytest.mark.parametrize("name", [*OPTIONAL, "none"])
def test_networks_are_right_without(name: str) -> None:
    passes = "none" if name == "none" else f"-{name}"
    for model in (*map(grown, SEEDS), floats()):
        compiled = mdlc.compile(model, "generic", passes=passes)
        inputs = random_inputs(compiled.graph, compiled.how)
        found = Judge(compiled)([played(compiled, inputs)])
        assert found.ok, found.first_off


@pytest.mark.parametrize("name", [name for name in OPTIONAL if name != "fold_constants"])
def test_each_pass_changes_one_of_the_networks(name: str) -> None:
    models = [grown(SEEDS[0]), floats(), eight_bits(), attention()]
    if name == FUSE_ROWS:
        models = [mixed_model().SerializeToString()]

    def plan(model: Any, passes: str) -> Any:
        found = mdlc.compile(model, "x86-avx2", passes=passes).plan
        return print_graph(found.graph), len(found.row_groups)

    assert any(plan(model, "all") != plan(model, f"-{name}") for model in models)


def test_constants_that_the_importer_did_not_fold() -> None:
    (x,) = inputs = (graph_input("x", (1, 4)),)
    sum_ = make(Add(), constant(np.float32([1.0])), constant(np.float32([2.0])))
    graph = Graph(inputs, (make(Add(), x, sum_, name="y"),), ("y",))

    def kinds(found: Graph) -> list[str]:
        return [type(n.op).__name__ for n in found.order() if n.inputs]

    assert kinds(optimise(graph)) == ["Add"]
    assert kinds(optimise(graph, without=["fold_constants"])) == ["Add", "Add"]


def test_nothing_is_fused_or_folded_without_passes() -> None:
    compiled = mdlc.compile(DIGITS, "generic", passes="none")
    ops = [type(step.node.op).__name__ for step in compiled.plan.steps]
    assert ops.count("Clip") > 5
    assert all(getattr(s.node.op, "activation", None) is None for s in compiled.plan.steps)
    assert not compiled.plan.row_groups


@pytest.mark.parametrize("passes", ["none", "-fuse_activation,-flatten_channels_last"])
def test_emitted_classes_agree_with_and_without(passes: str) -> None:
    plain = mdlc.compile(DIGITS, "generic", passes=passes)
    full = mdlc.compile(DIGITS, "generic")
    inputs = random_inputs(full.graph, full.how)
    assert verify(plain, [inputs]).ok
    ours, other = plain.build()(inputs), full.build()(inputs)
    for name, expected in other.items():
        assert relative_error(ours[name], expected) < 1e-5


def test_eight_bits_without_passes() -> None:
    model = eight_bits()
    plain, full = (mdlc.compile(model, "generic", passes=p) for p in ("none", "all"))
    inputs = random_inputs(full.graph, full.how)
    kinds = {type(step.node.op).__name__ for step in plain.plan.steps}
    assert "QuantizedConv2D" not in kinds
    expected = played(full, inputs).results["y"]
    found = played(plain, inputs).results["y"]
    assert np.abs(expected - found).max() <= 0.02 * 1.001  # a step of the last scale


def test_a_choice_of_passes() -> None:
    assert left_out("all") == frozenset()
    assert left_out(["-fuse_pad"]) == {"fuse_pad"}
    assert left_out("-fuse_pad,-fuse_rows") == {"fuse_pad", "fuse_rows"}
    assert not {each.__name__ for each in NEEDED} & left_out("none")
    options = mdlc.CompileOptions("generic", passes=["-fuse_rows", "-fuse_pad"])
    assert options.passes == "-fuse_pad,-fuse_rows"


@pytest.mark.parametrize(
    ("passes", "sentence"),
    [
        ("-fuse_pads", "--passes: there is no pass 'fuse_pads'; did you mean fuse_pad"),
        ("fuse_pad", "--passes: 'fuse_pad' is not a choice of passes; write all, none, or -NAME"),
        ("-lower_batch_norm", "--passes: lower_batch_norm cannot be left out: kernels need it"),
        ("", "--passes: '' is not a choice of passes"),
    ],
)
def test_choices_that_are_none(passes: str, sentence: str) -> None:
    with pytest.raises(mdlc.MdlcError) as error:
        mdlc.CompileOptions(passes=passes)
    assert str(error.value).startswith(sentence)


def shift_activations(graph: Graph, *, budget: Budget | None = None) -> Graph:
    """A pass whose third rewrite is wrong: it adds 0.01 in front of an activation."""

    def shift(m: Match) -> Any:
        c = constant(np.float32([0.01 if m.root.name == "r2" else 0.0]))
        return make(LeakyRelu(0.0), make(Add(), m["x"], c))

    return rewrite(graph, (Rule("shift", pat(Relu, Var("x")), shift),), budget)


def chain() -> Graph:
    """Four activations, each behind an addition."""
    x = node = graph_input("x", (1, 8))
    for i in range(4):
        node = make(Add(), node, constant(np.float32([0.5])), name=f"a{i}")
        node = make(Relu(), node, name=f"r{i}")
    return Graph((x,), (replace(node, name="y"),), ("y",))


def test_bisect_names_the_pass_and_the_rewrite() -> None:
    graph = chain()
    inputs = {"x": np.linspace(-1, 1, 8, dtype=np.float32)[None]}
    fault_of = keeps_tensors(graph, inputs)
    assert bisect(graph, PASSES, fault_of) is None
    passes = (*PASSES[:2], shift_activations, *PASSES[2:])
    found = bisect(graph, passes, fault_of)
    assert found is not None
    assert (found.name, found.number, found.rewrite) == ("shift_activations", 3, 3)
    assert found.event is not None
    assert (found.event.rule, found.event.node) == ("shift", "r2")
    assert "'r2'" in found.fault or "'a3'" in found.fault


def test_bisect_of_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that is wrong with an activation: the pass that fuses it shows it."""
    compiled = mdlc.compile(DIGITS, "generic")
    inputs = random_inputs(compiled.graph, compiled.how)

    def fault(network: mdlc.CompiledModel, given: object) -> str:
        fused = [s.name for s in network.plan.steps if getattr(s.node.op, "activation", None)]
        return f"layer {fused[2]!r} is off" if len(fused) > 2 else ""

    monkeypatch.setattr(bisection, "class_fault", fault)
    found = find_culprit(compiled, inputs)
    assert found is not None
    assert (found.name, found.emitted, found.rewrite) == ("fuse_activation", True, 3)


def test_bisect_of_row_fused_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = mdlc.compile(DIGITS, "generic")

    def fault(network: mdlc.CompiledModel, given: object) -> str:
        return "off" if network.plan.row_groups else ""

    def lower(*given: Any, row_groups: Any = None, **rest: Any) -> Any:
        plan = original.lower(*given, **rest)
        return plan if row_groups == () else replace(plan, row_groups=(object(),))

    original = bisection.target_of(compiled.plan)
    monkeypatch.setattr(bisection, "target_of", lambda plan: replace(original, lower=lower))
    monkeypatch.setattr(bisection, "class_fault", fault)
    found = find_culprit(compiled, random_inputs(compiled.graph, compiled.how))
    assert found is not None
    assert found.name == "fuse_rows"


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bisection, "class_fault", lambda *given: "")
    assert invoke(["bisect", str(DIGITS), "-t", "generic"]) == 0
    assert "no pass moves a tensor" in capsys.readouterr().out
    monkeypatch.setattr(bisection, "class_fault", lambda *given: "layer 'stem' is off")
    assert invoke(["bisect", str(DIGITS), "-t", "generic"]) == 1
    assert "no pass is to blame: layer 'stem' is off" in capsys.readouterr().out
