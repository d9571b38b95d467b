"""What the tests of the Metal target share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from mdlc.codegen.metal.program import MetalProgram, find_clang
from mdlc.codegen.plan.plan import Plan
from mdlc.codegen.target import Target, find_target
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph
from mdlc.compiler.types import Array
from mdlc.passes.canonicalise import lower_batch_norm
from mdlc.passes.layout import assign_layout

METAL = find_target("metal")
METAL_FLOAT = find_target("metal+fp32")
SHIM = Path(__file__).parents[2] / "runtime_templates" / "metal" / "shim"


def require_clang() -> tuple[str, ...]:
    """Skips the test where no clang can simulate the GPU, with the reason."""
    try:
        return find_clang()
    except MdlcError as error:
        pytest.skip(str(error))


def plan_of(graph: Graph, name: str = "Samples", target: Target = METAL) -> Plan:
    return target.lower(assign_layout(lower_batch_norm(graph)), target.backend, name)


def program_of(graph: Graph, name: str = "Samples", target: Target = METAL) -> MetalProgram:
    require_clang()
    return MetalProgram(plan_of(graph, name, target))


def add_model() -> onnx.ModelProto:
    """The sum of two images of 24 channels."""
    size = (1, 24, 6, 7)
    infos = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, size) for name in "aby"]
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["y"])], "sum", infos[:2], infos[2:]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def softmax_model() -> onnx.ModelProto:
    """A group of threads works together: softmax of 1001 classes."""
    infos = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (1, 1001)) for name in "xy"
    ]
    node = helper.make_node("Softmax", ["x"], ["y"])
    graph = helper.make_graph([node], "classes", infos[:1], infos[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def mixed_model() -> onnx.ModelProto:
    """Operators that Metal lacks (on 64-bit floats) beside one that it has."""
    infos = {
        name: helper.make_tensor_value_info(name, kind, (1, 4))
        for name, kind in (
            ("x", onnx.TensorProto.FLOAT),
            ("y", onnx.TensorProto.DOUBLE),
            ("z", onnx.TensorProto.DOUBLE),
        )
    }
    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["x"], ["r"]),
            helper.make_node("Cast", ["r"], ["d"], to=onnx.TensorProto.DOUBLE, name="widen"),
            helper.make_node("Exp", ["d"], ["y"], name="exponential"),
            helper.make_node("Log", ["d"], ["z"], name="logarithm"),
        ],
        "mixed",
        [infos["x"]],
        [infos["y"], infos["z"]],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def wide_model(channels: int) -> onnx.ModelProto:
    """An element-wise layer on more channels than a texture array has slices for."""
    infos = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (1, channels)) for name in "xy"
    ]
    node = helper.make_node("Relu", ["x"], ["y"])
    graph = helper.make_graph([node], "wide", infos[:1], infos[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def picture_model(height: int = 8, width: int = 12) -> onnx.ModelProto:
    """Takes a picture of 8-bit values and gives twice each channel."""
    size = (1, 3, height, width)
    infos = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, size) for name in "xy"]
    weights = numpy_helper.from_array(np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1) * 2, "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "picture", infos[:1], infos[1:], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def forms_model() -> onnx.ModelProto:
    """A kernel of each special form: Winograd, depthwise and pointwise in one, matrices."""
    rng = np.random.default_rng(3)
    shapes = {"a": (64, 64, 3, 3), "d": (64, 1, 3, 3), "p": (64, 64, 1, 1), "q": (64, 64, 1, 1)}
    weights = [
        numpy_helper.from_array((rng.standard_normal(shape) / 16).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    same = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["winograd"], **same),
        helper.make_node("Relu", ["winograd"], ["r"]),
        helper.make_node("Conv", ["r", "d"], ["depthwise"], group=64, **same),
        helper.make_node("Conv", ["depthwise", "p"], ["separable"]),
        helper.make_node("Relu", ["separable"], ["s"]),
        helper.make_node("Conv", ["s", "q"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "forms",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, 64, 56, 55))],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (1, 64, 56, 55))],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def relative_error(actual: Array, expected: Array) -> float:
    """Largest difference over the largest finite magnitude; equal infinities and NaNs agree."""
    a, e = actual.astype(np.float64), expected.astype(np.float64)
    same = (a == e) | (np.isnan(a) & np.isnan(e))
    finite = np.abs(e[np.isfinite(e)])
    peak = float(finite.max()) if finite.size else 1.0
    with np.errstate(invalid="ignore"):
        worst = np.where(same, 0.0, np.abs(a - e)).max(initial=0.0)
    return float(worst / peak) if peak else float(worst)


def flatten_model() -> onnx.ModelProto:
    """A flattened image of more channels than a texture has: 6x6x256 = 9216."""
    infos = [
        helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, 2, 6, 6)),
        helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (1, 5)),
    ]
    rng = np.random.default_rng(0)
    widen = rng.standard_normal((256, 2, 1, 1)).astype(np.float32)
    dense = (rng.standard_normal((5, 9216)) / 96).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["wide"]),
            helper.make_node("Flatten", ["wide"], ["flat"]),
            helper.make_node("Gemm", ["flat", "d"], ["y"], transB=1),
        ],
        "flatten",
        infos[:1],
        infos[1:],
        [numpy_helper.from_array(widen, "w"), numpy_helper.from_array(dense, "d")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
