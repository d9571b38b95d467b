"""Depthwise and pointwise convolutions in one kernel: on awkward shapes, and only where it may."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import mdlc
from mdlc.codegen.kernel import candidates
from mdlc.codegen.metal.program import MetalProgram
from tests.metal.programs import METAL, relative_error, require_clang

BOUND = 8 * 2.0**-11

# Channels, height, width, taps, stride, dilation, output channels, activations, residual.
CHAINS = (
    (13, 9, 7, 3, 1, 1, 8, "Relu", False),
    (16, 8, 10, 3, 2, 1, 24, None, False),
    (8, 11, 9, 5, 1, 2, 6, "Clip", False),
    (12, 6, 7, 3, 1, 1, 12, None, True),
    (32, 5, 5, 1, 1, 1, 40, "HardSwish", False),
)


def chains_model(*, read_twice: bool = False) -> onnx.ModelProto:
    """Every chain by itself: input, depthwise, activation, pointwise, activation."""
    rng = np.random.default_rng(5)
    nodes, inputs, outputs, weights = [], [], [], []

    def weight(name: str, *shape: int) -> str:
        scale = np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 4
        value = (rng.standard_normal(shape) / scale).astype(np.float32)
        weights.append(numpy_helper.from_array(value, name))
        return name

    def activate(kind: str | None, source: str) -> str:
        if kind is None:
            return source
        bounds = []
        if kind == "Clip":
            for name, value in (("low", 0.0), ("high", 1.0)):
                bounds.append(f"{source}_{name}")
                array = np.array(value, np.float32)
                weights.append(numpy_helper.from_array(array, bounds[-1]))
        nodes.append(helper.make_node(kind, [source, *bounds], [f"{source}_a"]))
        return f"{source}_a"

    for n, (c, h, w, taps, stride, dilation, out, kind, residual) in enumerate(CHAINS):
        inputs.append(helper.make_tensor_value_info(f"x{n}", TensorProto.FLOAT, (1, c, h, w)))
        pad = dilation * (taps // 2)
        operands = [f"x{n}", weight(f"f{n}", c, 1, taps, taps), weight(f"fb{n}", c)]
        attributes = {"strides": [stride] * 2, "dilations": [dilation] * 2, "pads": [pad] * 4}
        nodes.append(helper.make_node("Conv", operands, [f"d{n}"], group=c, **attributes))
        inner = activate(kind, f"d{n}")
        operands = [inner, weight(f"w{n}", out, c, 1, 1), weight(f"b{n}", out)]
        nodes.append(helper.make_node("Conv", operands, [f"p{n}"]))
        last = activate(kind, f"p{n}")
        if residual:
            nodes.append(helper.make_node("Add", [last, f"x{n}"], [f"r{n}"]))
            last = f"r{n}"
        outputs.append(helper.make_tensor_value_info(last, TensorProto.FLOAT, None))
        if read_twice:
            outputs.append(helper.make_tensor_value_info(inner, TensorProto.FLOAT, None))
    graph = helper.make_graph(nodes, "chains", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_every_tile_agrees_with_onnxruntime() -> None:
    require_clang()
    model = chains_model()
    rng = np.random.default_rng(0)
    feeds = {f"x{n}": rng.standard_normal((1, c, h, w)).astype(np.float16).astype(np.float32)
             for n, (c, h, w, *_) in enumerate(CHAINS)}  # fmt: skip
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    wanted = dict(zip(names, session.run(None, feeds), strict=True))
    plan = mdlc.compile(model, "metal", name="Chains").plan
    fused = {
        node.name: [
            c.schedule for c in candidates(node, METAL.backend) if c.kernel.name == "separable"
        ]
        for node in plan.graph.order()
        if any(node.name.startswith(start) for start in "pr") and node.inputs
    }
    fused = {name: schedules for name, schedules in fused.items() if schedules}
    assert len(fused) == len(CHAINS)
    for number in range(max(map(len, fused.values()))):
        chosen = {name: each[min(number, len(each) - 1)] for name, each in fused.items()}
        split = METAL.lower(plan.graph, METAL.backend, "Chains", schedules=chosen)
        assert {step.kernel.name for step in split.steps} == {"separable"}
        assert len(split.steps) == len(CHAINS)
        for name, value in MetalProgram(split)(feeds).items():
            assert relative_error(value, wanted[name]) <= BOUND, f"{name} {chosen}"


def test_what_others_read_is_computed_by_itself() -> None:
    plan = mdlc.compile(chains_model(read_twice=True), "metal").plan
    assert "separable" not in {step.kernel.name for step in plan.steps}


def test_work_is_counted_whole() -> None:
    """Fused or not, the network has the multiply-adds that a C++ target counts."""
    model = chains_model()
    assert mdlc.compile(model, "metal").plan.macs == mdlc.compile(model, "generic").plan.macs
