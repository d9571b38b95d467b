"""mdlc doctor: every obstacle at once, each with the smallest model that shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mdlc.checks import doctor
from mdlc.checks.doctor import Finding, diagnose
from mdlc.cli import invoke
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.onnx_import import import_model
from mdlc.compiler.ops.tanh import Tanh
from mdlc.compiler.types import DType
from mdlc.options import CompileOptions
from tests.test_api import DIGITS

OPTIONS = CompileOptions(target="generic")


def model(path: Path, nodes: list[onnx.NodeProto], inputs: list[Any], outputs: list[Any]) -> Path:
    weights = [numpy_helper.from_array(np.ones((4, 8, 1, 1), np.float32), "w")]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.acme", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def value(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def hindered(path: Path) -> Path:
    """A model with an open dimension, an operator of nobody's, and sizes known at run time."""
    nodes = [
        helper.make_node("Polish", ["x"], ["p"], "polish", domain="com.acme"),
        helper.make_node("Conv", ["p", "w"], ["c"], "conv"),
        helper.make_node("Add", ["n", "n"], ["twice"], "twice"),
        helper.make_node("Expand", ["x", "twice"], ["y"], "expand"),
        helper.make_node("Relu", ["c"], ["z"], "relu"),
        helper.make_node("Dust", ["c"], ["d"], "dust", domain="com.acme"),
        helper.make_node("Sqrt", ["d"], ["e"], "behind"),
    ]
    inputs = [value("x", [1, 8, "h", 5]), value("n", [4], TensorProto.INT64)]
    made = model(path, nodes, inputs, [value("y", [None] * 4), value("z", [None] * 4),
                                       value("e", [None] * 4)])  # fmt: skip
    proto = onnx.load(made)
    proto.graph.value_info.append(value("p", [1, 8, 224, 5]))
    onnx.save(proto, made)
    return made


def test_every_obstacle_at_once(tmp_path: Path) -> None:
    found = diagnose(hindered(tmp_path / "m.onnx"), OPTIONS, samples=True)
    kinds = {each.where: each.kind for each in found.findings}
    assert kinds == {
        "input 'x'": "dimension",
        "node 'polish' (Polish)": "operator",
        "node 'expand' (Expand)": "parameter",
        "node 'dust' (Dust)": "operator",
    }
    # What stands behind `polish`, whose output the model declares, is looked at.
    assert found.unseen == ("node 'behind' (Sqrt)",)
    assert found.assumed == ("x=1,8,224,5",)
    by_kind = {each.kind: each for each in found.findings}
    assert by_kind["dimension"].hint == "fix it, as in --shape x=1,8,224,5"
    assert "computed by 'twice'" in by_kind["parameter"].cause
    assert "follows from 'n'" in by_kind["parameter"].cause
    assert all(each.hint and each.cause for each in found.findings)


def test_samples_show_their_obstacle(tmp_path: Path) -> None:
    path = hindered(tmp_path / "m.onnx")
    for each in diagnose(path, OPTIONS, samples=True).findings:
        sample = each.sample
        assert sample is not None
        assert len(sample.graph.node) == 1
        (tmp_path / "s.onnx").write_bytes(sample.SerializeToString())
        again = diagnose(tmp_path / "s.onnx", OPTIONS)
        assert [one.kind for one in again.findings] == [each.kind]


def test_obstacles_in_the_body_of_an_if(tmp_path: Path) -> None:
    body = helper.make_graph(
        [helper.make_node("Polish", ["x"], ["a"], "inner", domain="com.acme")], "b", [],
        [value("a", [1, 8])],
    )  # fmt: skip
    other = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["b"])], "o", [], [value("b", [1, 8])]
    )
    node = helper.make_node("If", ["c"], ["y"], "if", then_branch=body, else_branch=other)
    inputs = [value("x", [1, 8]), value("c", [], TensorProto.BOOL)]
    path = model(tmp_path / "m.onnx", [node], inputs, [value("y", [1, 8])])
    found = diagnose(path, OPTIONS)
    assert [(each.where, each.kind) for each in found.findings] == [
        ("node 'inner' (Polish)", "operator")
    ]


def test_an_element_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be imported in float32 is said to be of a type that is not supported."""
    from_onnx = Tanh.from_onnx

    def picky(n: Any) -> Any:
        if n.input(0).type.dtype is DType.F64:
            raise n.error("Tanh of f64 is not supported")
        return from_onnx(n)

    monkeypatch.setattr(Tanh, "from_onnx", picky)
    kind = TensorProto.DOUBLE
    nodes = [helper.make_node("Tanh", ["x"], ["y"], "tangent")]
    path = model(tmp_path / "m.onnx", nodes, [value("x", [9], kind)], [value("y", [9], kind)])
    (finding,) = diagnose(path, OPTIONS).findings
    assert (finding.kind, finding.where) == ("type", "node 'tangent' (Tanh)")


def test_a_kernel_that_the_target_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = doctor.candidates

    def few(node: Any, backend: Any) -> Any:
        if type(node.op).__name__ == "Sin":
            raise MdlcError("no kernel for Sin", node=f"node {node.name!r}")
        return candidates(node, backend)

    monkeypatch.setattr(doctor, "candidates", few)
    nodes = [
        helper.make_node("Sin", ["x"], ["a"], "sine"),
        helper.make_node("Reshape", ["a", "s"], ["y"], "reshape"),
    ]
    path = model(tmp_path / "m.onnx", nodes, [value("x", [2, 6])], [value("y", [12])])
    proto = onnx.load(path)
    proto.graph.initializer.append(numpy_helper.from_array(np.array([12]), "s"))
    onnx.save(proto, path)
    (finding,) = diagnose(path, OPTIONS, samples=True).findings
    assert (finding.kind, finding.where) == ("kernel", "node 'sine' (Sin)")
    assert finding.sample is not None
    assert import_model(finding.sample).outputs[0].shape == (2, 6)


def test_metal_names_all_that_it_lacks(tmp_path: Path) -> None:
    kind = TensorProto.DOUBLE
    nodes = [helper.make_node("Cos", ["x"], ["y"], "cosine")]
    path = model(tmp_path / "m.onnx", nodes, [value("x", [9], kind)], [value("y", [9], kind)])
    (finding,) = diagnose(path, CompileOptions(target="metal")).findings
    assert finding.kind == "kernel"
    assert "target metal does not have" in finding.reason


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"no model")
    (finding,) = diagnose(path, OPTIONS).findings
    assert isinstance(finding, Finding)
    assert finding.kind == "model"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, samples = hindered(tmp_path / "m.onnx"), tmp_path / "samples"
    words = ["doctor", str(path), "-t", "generic"]
    assert invoke([*words, "--json", "--write-samples", str(samples)]) == 2
    told = json.loads(capsys.readouterr().out)
    assert len(told["obstacles"]) == 4
    for each in told["obstacles"]:
        onnx.load(each["sample"])
    assert invoke(words) == 2
    text = capsys.readouterr().out
    assert "4 obstacles: 1 dimension, 2 operators, 1 parameter" in text
    assert invoke(["doctor", str(DIGITS), "-t", "generic"]) == 0
    assert capsys.readouterr().out == "nothing stands in the way\n"
