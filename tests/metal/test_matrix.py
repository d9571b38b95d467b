"""Pointwise convolutions as products of 8 x 8 matrices, on a simulated GPU of either family."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import mdlc
from mdlc.codegen.metal.emit_metal import codes_of
from tests.metal.programs import relative_error, require_clang

BOUND = 8 * 2.0**-11

# Input channels (blocks of the depth of 32, 16, 8), output channels (64 or 32 a group), height,
# width (pixels that fill no group), activation, residual.
LAYERS = (
    (64, 64, 21, 23, "Relu", True),
    (48, 96, 8, 8, None, False),
    (40, 160, 13, 9, "HardSwish", False),
)


def layers_model() -> onnx.ModelProto:
    """The layers side by side, and one whose channels fill no group of threads."""
    rng = np.random.default_rng(2)
    nodes, inputs, outputs, weights = [], [], [], []
    for n, (depth, channels, h, w, kind, residual) in enumerate((*LAYERS, (32, 24, 8, 8, None, 0))):
        filters = rng.standard_normal((channels, depth, 1, 1)) / depth**0.5
        weights.append(numpy_helper.from_array(filters.astype(np.float32), f"w{n}"))
        bias = rng.standard_normal(channels).astype(np.float32)
        weights.append(numpy_helper.from_array(bias, f"b{n}"))
        inputs.append(helper.make_tensor_value_info(f"x{n}", TensorProto.FLOAT, (1, depth, h, w)))
        last = f"y{n}"
        nodes.append(helper.make_node("Conv", [f"x{n}", f"w{n}", f"b{n}"], [last]))
        if residual:
            nodes.append(helper.make_node("Add", [last, f"x{n}"], [f"r{n}"]))
            last = f"r{n}"
        if kind:
            nodes.append(helper.make_node(kind, [last], [f"a{n}"]))
            last = f"a{n}"
        outputs.append(helper.make_tensor_value_info(last, TensorProto.FLOAT, None))
    graph = helper.make_graph(nodes, "layers", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_both_families_agree_with_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    require_clang()
    model = layers_model()
    compiled = mdlc.compile(model, "metal", name="Matrix")
    forms = [code.matrix is not None for code in codes_of(compiled.plan)]
    assert sorted(forms) == [False, True, True, True]
    rng = np.random.default_rng(0)
    feeds = {
        node.name: rng.standard_normal(node.shape).astype(np.float16).astype(np.float32)
        for node in compiled.graph.inputs
    }
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    wanted = dict(zip(names, session.run(None, feeds), strict=True))
    program = compiled.build()
    found = {}
    for family in ("6", "7"):
        monkeypatch.setenv("MDLC_METAL_FAMILY", family)
        found[family] = program(feeds)
        for name, value in found[family].items():
            assert relative_error(value, wanted[name]) <= BOUND, f"{name} family {family}"
    # Sums in another order: it was another kernel.
    assert any((found["6"][name] != found["7"][name]).any() for name in names)


def test_the_class_asks_for_the_family_and_the_manifest_names_the_kernel() -> None:
    files = mdlc.compile(layers_model(), "metal", name="Matrix").files()
    source = files["Matrix.cpp"].decode()
    assert source.count("if (matrices_) {") == len(LAYERS)
    assert "supportsFamily(MTL::GPUFamilyApple7)" in source
    assert '"simdgroup_matrix": "matrix_' in files["Matrix.json"].decode()
    assert ".iOS(.v14)" in files["Package.swift"].decode()
