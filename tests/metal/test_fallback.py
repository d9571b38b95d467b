"""Networks divided between GPU and processor: what Metal lacks is computed by a C++ class."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import mdlc
from mdlc.cli import invoke
from mdlc.codegen.metal.lowering import lower
from mdlc.codegen.metal.program import MetalProgram
from mdlc.codegen.metal.split import MetalPlan
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.interpreter import run
from mdlc.compiler.ops.quantized_add import QuantizedAdd
from mdlc.compiler.ops.relu import Relu
from mdlc.compiler.types import Array
from mdlc.passes.layout import assign_layout
from tests.metal.programs import METAL, mixed_model, relative_error, require_clang
from tests.test_kernels import network_of

SIZE = (1, 4, 5, 6)
BOUND = 2e-2  # a dozen layers in half precision


def plan(compiled: mdlc.CompiledModel) -> MetalPlan:
    assert isinstance(compiled.plan, MetalPlan)
    return compiled.plan


def expected(model: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, map(np.asarray, session.run(None, feeds)), strict=True))


def tangled_model(seed: int) -> onnx.ModelProto:
    """Layers of the GPU (32-bit) and of the processor (64-bit) that read one another at random."""
    rng = np.random.default_rng(seed)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    single, double = ["x"], ["w"]

    def add(kind: str, inputs: list[str], **attributes: object) -> str:
        name = f"t{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def pick(names: list[str]) -> str:
        return names[int(rng.integers(len(names)))]

    for number in range(14):
        match int(rng.integers(6)):
            case 0:
                filters = rng.standard_normal((4, 4, 3, 3)).astype(np.float32) / 6
                weights.append(numpy_helper.from_array(filters, f"f{number}"))
                single.append(add("Conv", [pick(single), f"f{number}"], pads=[1, 1, 1, 1]))
            case 1:
                single.append(add("Add", [pick(single), pick(single)]))
            case 2:
                single.append(add("Relu", [pick(single)]))
            case 3:
                double.append(add("Cast", [pick(single)], to=TensorProto.DOUBLE))
            case 4:
                double.append(add("Add", [add("Tanh", [pick(double)]), pick(double)]))
            case 5:
                single.append(add("Cast", [pick(double)], to=TensorProto.FLOAT))
    outputs = [*dict.fromkeys([single[-1], *single[1:3], double[-1], *double[1:2]])]
    outputs = [name for name in outputs if name not in ("x", "w")]
    kinds = {name: TensorProto.FLOAT for name in single} | dict.fromkeys(double, TensorProto.DOUBLE)
    graph = helper.make_graph(
        nodes,
        "tangled",
        [helper.make_tensor_value_info(name, kinds[name], SIZE) for name in ("x", "w")],
        [helper.make_tensor_value_info(name, kinds[name], SIZE) for name in outputs],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("seed", range(3))
def test_tangled_networks_agree_with_onnxruntime(seed: int) -> None:
    require_clang()
    model = tangled_model(seed)
    with pytest.raises(MdlcError, match="f64"):
        mdlc.compile(model, "metal")
    compiled = mdlc.compile(model, "metal", name="Tangled", fallback="cpu")
    assert plan(compiled).parts
    assert plan(compiled).steps
    rng = np.random.default_rng(seed)
    feeds = {"x": rng.standard_normal(SIZE).astype(np.float32), "w": rng.standard_normal(SIZE)}
    feeds = {node.name: feeds[node.name] for node in compiled.graph.inputs}
    wanted = expected(model, {"x": feeds.get("x", np.zeros(SIZE, np.float32)),
                              "w": feeds.get("w", np.zeros(SIZE))})  # fmt: skip
    for name, value in compiled.build()(feeds).items():
        assert value.dtype == wanted[name].dtype
        assert relative_error(value, wanted[name]) <= BOUND, name


def test_the_processor_keeps_its_precision_and_the_manifest_says_what_it_computes() -> None:
    require_clang()
    compiled = mdlc.compile(mixed_model(), "metal", name="Mixed", fallback="cpu")
    files = compiled.files()
    (part,) = json.loads(files["Mixed.json"])["cpu"]
    assert part["class"] == "MixedCpu1"
    assert part["target"] == "arm-neon"
    assert part["behind"] == "r"
    assert [layer["operator"] for layer in part["layers"]] == ["Cast", "Exp", "Log"]
    own = {"MixedCpu1.h", "MixedCpu1_internal.h", "MixedCpu1.cpp", "MixedCpu1_arm_neon.cpp"}
    assert own <= files.keys()
    for source in ("MixedCpu1.cpp", "MixedCpu1_arm_neon.cpp"):
        assert source in files["Package.swift"].decode()
        assert source in files["CMakeLists.txt"].decode()
    x = np.array([[1.0, 2.0, -3.0, 4.0]], np.float32)  # exact in half precision
    actual = compiled.build()({"x": x})
    for name, value in expected(mixed_model(), {"x": x}).items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-12)


def test_a_network_without_a_layer_for_metal_is_refused() -> None:
    graph, _ = network_of(QuantizedAdd)
    with pytest.raises(MdlcError, match="none of the network's layers"):
        lower(assign_layout(graph), METAL.backend, "Bytes", fallback=True)


def test_what_metal_has_stays_whole() -> None:
    """Without a layer that Metal lacks, --fallback changes nothing but the recorded command."""
    graph, values = network_of(Relu)
    one, two = (
        METAL.lower(assign_layout(graph), METAL.backend, "Whole", fallback=fallback)
        for fallback in (False, True)
    )
    assert not two.parts
    assert one.digest() == two.digest()
    require_clang()
    for name, value in run(graph, values).items():
        assert relative_error(MetalProgram(two)(values)[name], value) < 2e-3


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require_clang()
    path = tmp_path / "mixed.onnx"
    onnx.save(mixed_model(), path)
    arguments = [str(path), "-t", "metal", "--fallback", "cpu"]
    assert invoke([*arguments, "-o", str(tmp_path / "o"), "--name", "Mixed"]) == 0
    assert (tmp_path / "o" / "MixedCpu1.cpp").exists()
    assert "--fallback cpu" in (tmp_path / "o" / "Mixed.h").read_text()
    capsys.readouterr()
    assert invoke(["verify", *arguments]) == 0
    assert "every layer is within its bound" in capsys.readouterr().out
    assert invoke([str(path), "-t", "metal", "-o", str(tmp_path / "no")]) == 2
    assert "--fallback cpu" in capsys.readouterr().err
    assert invoke([str(path), "-t", "generic", "--fallback", "cpu"]) == 2
    assert "has all layers on the processor already" in capsys.readouterr().err
